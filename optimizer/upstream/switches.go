package upstream

import (
	"log/slog"
	"time"
)

// spoken is what is spoken to an upstream, as far as the log has been told.
type spoken int

const (
	asWanted  spoken = iota // HTTP/2, if that is wanted
	trialOf1                // HTTP/1.1, until it answers or HTTP/2 is tried again
	fallenTo1               // HTTP/1.1, for upstream.fallback_for
)

// inWords says what led to a fallback.
var inWords = map[string]string{
	withoutH2:       "it chose HTTP/1.1 by ALPN, or has no ALPN",
	nothingInCommon: "it has neither h2 nor http/1.1 in common with us by ALPN",
	notHTTP2:        "what it answered to the begin of HTTP/2 is no HTTP/2",
	saidNothing:     "it ended the connection, or let its time pass, without a word of HTTP/2",
	wantsHTTP1:      "it said HTTP_1_1_REQUIRED (RFC 9113 §7)",
}

// tellFallback has the log told of a fallback, or that one for a trial is one for long. A
// further try of HTTP/2 that leaves it at HTTP/1.1 is no news, nor is a further trial. The
// line's lock is held.
func (p *Pool) tellFallback(now spoken, reason, why string, until time.Time) {
	if now <= p.told {
		return
	}
	p.told = now
	p.tell(slog.LevelWarn, "HTTP/1.1 takes the place of HTTP/2", "upstream", p.url.Host, "reason", reason, "why", why, "until", until)
}

// tellHTTP2 has the log told that HTTP/2 is spoken again, if it was told of a fallback. The
// line's lock is held.
func (p *Pool) tellHTTP2() {
	if p.told != asWanted {
		p.told = asWanted
		p.tell(slog.LevelInfo, "HTTP/2 is spoken again", "upstream", p.url.Host)
	}
}

// tell has a line logged, in order, by who may wait for the log's reader: neither the line's
// lock, which is held, nor a connection that is being read may.
func (p *Pool) tell(level slog.Level, message string, args ...any) {
	p.untold = append(p.untold, func() { p.cfg.Logger.Log(p.ctx, level, message, args...) })
	if len(p.untold) > 1 {
		return
	}
	go func() {
		p.line.mu.Lock()
		defer p.line.mu.Unlock()
		for len(p.untold) > 0 {
			next := p.untold[0]
			p.line.mu.Unlock()
			next()
			p.line.mu.Lock()
			p.untold = p.untold[1:]
		}
	}()
}
