package upstream

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A fallback is a line of the log, and so is a trial that became one for long, but neither a
// further try nor a further trial.
func TestFallbacksInTheLog(t *testing.T) {
	t.Parallel()
	const warn, info = "level=WARN msg=\"HTTP/1.1 takes the place of HTTP/2\" upstream=127.0.0.1:1 reason=", "level=INFO msg=\"HTTP/2 is spoken again\" upstream=127.0.0.1:1"
	begin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // synctest's
	until := func(after time.Duration) string {
		return " until=" + begin.Add(after).Format("2006-01-02T15:04:05.000Z07:00")
	}
	inUTC := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindTime {
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
		return a
	}}
	back := func(p *Pool) {
		p.line.mu.Lock()
		p.tellHTTP2()
		p.line.mu.Unlock()
	}
	for _, tt := range []struct {
		why  string
		do   func(p *Pool)
		want []string
	}{
		{"tried again and again, and then it is back", func(p *Pool) {
			for range 3 {
				p.fallBack(withoutH2, time.Now())
				time.Sleep(time.Minute)
			}
			back(p)
			back(p)
			p.fallBack(wantsHTTP1, time.Now())
		}, []string{
			warn + "alpn why=\"it chose HTTP/1.1 by ALPN, or has no ALPN\"" + until(5*time.Minute), info,
			warn + "http_1_1_required why=\"it said HTTP_1_1_REQUIRED (RFC 9113 §7)\"" + until(8*time.Minute),
		}},
		{"trials, of which the last one is answered", func(p *Pool) {
			for range 3 {
				p.fallBack(saidNothing, time.Now())
				time.Sleep(500 * time.Millisecond)
			}
			p.proveHTTP1()
			p.proveHTTP1()
			p.fallBack(saidNothing, time.Now())
		}, []string{
			warn + "silence why=\"it ended the connection, or let its time pass, without a word of HTTP/2\"" + until(time.Second),
			warn + "silence why=\"it answered over HTTP/1.1, and not over HTTP/2\"" + until(1500*time.Millisecond+5*time.Minute),
		}},
		{"a trial, after which ALPN has none", func(p *Pool) {
			p.fallBack(saidNothing, time.Now())
			p.fallBack(nothingInCommon, time.Now())
			p.fallBack(notHTTP2, time.Now())
		}, []string{
			warn + "silence why=\"it ended the connection, or let its time pass, without a word of HTTP/2\"" + until(time.Second),
			warn + "no_common_alpn why=\"it has neither h2 nor http/1.1 in common with us by ALPN\"" + until(5*time.Minute),
		}},
		{"none before HTTP/2", back, nil},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p, err := New(Config{URL: "http://127.0.0.1:1", Protocol: H2C, Logger: slog.New(slog.NewTextHandler(&out, inUTC))})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				tt.do(p)
				synctest.Wait()
				var lines []string
				for line := range strings.Lines(out.String()) {
					_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ")
					lines = append(lines, line)
				}
				if fmt.Sprint(lines) != fmt.Sprint(tt.want) {
					t.Errorf("%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(tt.want, "\n"))
				}
			})
		})
	}
}

// Who takes no lines of the log holds up no request, and has all of them later, in order.
func TestALogThatNobodyReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := make(chan struct{})
		var out bytes.Buffer
		p, err := New(Config{URL: "http://127.0.0.1:1", Protocol: H2C, Logger: slog.New(slog.NewTextHandler(held{&out, read}, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for range 3 {
			p.fallBack(withoutH2, time.Now())
			g, err := p.line.enter(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			p.leave(g)
			p.line.mu.Lock()
			p.tellHTTP2()
			p.line.mu.Unlock()
		}
		close(read)
		synctest.Wait()
		if n := strings.Count(out.String(), "\n"); n != 6 || strings.Count(out.String(), "WARN") != 3 || strings.LastIndex(out.String(), "INFO") < strings.LastIndex(out.String(), "WARN") {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
	})
}

// held is a log whose reader comes late.
type held struct {
	io.Writer
	read chan struct{}
}

// Write waits for the reader.
func (h held) Write(p []byte) (int, error) {
	<-h.read
	return h.Writer.Write(p)
}
