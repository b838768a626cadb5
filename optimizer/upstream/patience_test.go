package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Patience is for connections that others have, and not for the first one, however long it
// takes; when that is there, it is as long as ever at most.
func TestPatienceIsNotForTheFirstConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		ready   time.Duration // when the first connection is
		streams int           // on it
		waited  time.Duration
		busy    bool
	}{
		{"later than patience", 12 * time.Second, 1, 12 * time.Second, false},
		{"later than patience, and others have it", 12 * time.Second, 0, 15 * time.Second, true},
		{"others have it all the time", 0, 0, 5 * time.Second, true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun, streams := time.Now(), 0
				l := &line{
					take: func() (grant, bool) { streams--; return grant{}, streams >= 0 }, more: func(int) {},
					first: func() bool { return time.Since(begun) < tt.ready }, room: 1, patience: 5 * time.Second,
				}
				time.AfterFunc(tt.ready, func() {
					l.mu.Lock()
					streams = tt.streams
					l.mu.Unlock()
					l.serve()
				})
				_, err := l.enter(t.Context(), false)
				if waited := time.Since(begun); errors.As(err, new(*BusyError)) != tt.busy || (err != nil) != tt.busy || waited != tt.waited {
					t.Errorf("%v after %v, want %v", err, waited, tt.waited)
				}
			})
		})
	}
}

// A deadline that passes in line is the line's doing, but while the first connection is
// being opened the upstream's; who reads of it is told which.
func TestDeadlinesInLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opening bool
		gaveUp  uint64
		says    string
	}{
		{true, 0, "the first connection of HTTP/2 wasn't ready in 3s; upstream.dial_timeout and upstream.tls_timeout allow more, the request's own deadline doesn't: "},
		{false, 1, "no connection became free in 3s, "},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &line{
				take: func() (grant, bool) { return grant{}, false }, more: func(int) {},
				first: func() bool { return tt.opening }, room: 1, patience: 5 * time.Second,
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := l.enter(ctx, false)
			if errors.As(err, new(*BusyError)) == tt.opening || errors.Is(err, context.DeadlineExceeded) != tt.opening || !strings.HasPrefix(err.Error(), tt.says) {
				t.Errorf("opening %v: %v", tt.opening, err)
			}
			if n := l.gaveUp.Load(); n != tt.gaveUp || l.queue.Len() != 0 {
				t.Errorf("opening %v: %d gave up, %d are in line", tt.opening, n, l.queue.Len())
			}
		})
	}
}
