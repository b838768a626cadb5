package telemetry

import (
	"context"
	"log/slog"
	"time"
)

// AccessLog writes one record per answered request. A nil AccessLog writes nothing.
type AccessLog struct{ logger *slog.Logger }

// Access is one line of the access log.
type Access struct {
	Client, Method, Host, Target string
	Status                       int
	Result                       Result
	Took                         time.Duration // until the answer was prepared
}

// NewAccessLog returns a log that writes to logger, at level info.
func NewAccessLog(logger *slog.Logger) *AccessLog { return &AccessLog{logger: logger} }

// Enabled reports whether records are written; ask before building one.
func (l *AccessLog) Enabled() bool { return l != nil }

// Write writes one record.
func (l *AccessLog) Write(a Access) {
	if l == nil {
		return
	}
	l.logger.LogAttrs(context.Background(), slog.LevelInfo, "access",
		slog.String("client", a.Client), slog.String("method", a.Method), slog.String("host", a.Host), slog.String("target", a.Target),
		slog.Int("status", a.Status), slog.String("cache", a.Result.String()), slog.Duration("took", a.Took))
}
