package upstream

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// The states in time: failures open it, a wait lets trials through, their success
// closes it, one failure among them opens it again.
func TestBreakerStatesInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(Config{}.WithDefaults().Breaker) // 50 % of at least 20 in 10 s, open for 5 s, 5 trials
		send := func(n int, outcome error) (refused int) {
			for range n {
				done, err := b.allow()
				if err != nil {
					refused++
					continue
				}
				done(outcome)
			}
			return refused
		}
		failure := errors.New("down")
		expect := func(when string, want State) {
			t.Helper()
			if got := b.state(); got != want {
				t.Fatalf("%s: %v, want %v", when, got, want)
			}
		}
		send(19, failure)
		expect("too few to judge", Closed)
		time.Sleep(11 * time.Second)
		send(1, failure)
		expect("the window rolled on", Closed)
		send(30, context.Canceled)
		expect("cancelled exchanges don't count", Closed)
		send(19, failure)
		expect("20 failures", Open)
		if send(3, nil) != 3 {
			t.Fatal("requests got through")
		}
		var open *OpenError
		time.Sleep(2 * time.Second)
		if _, err := b.allow(); !errors.As(err, &open) || open.RetryAfter != 3*time.Second {
			t.Fatalf("2 s later: %v", err)
		}
		time.Sleep(4 * time.Second)
		expect("after the wait", HalfOpen)
		send(1, failure)
		expect("a failed trial", Open)
		time.Sleep(6 * time.Second)
		send(5, nil)
		expect("5 good trials", Closed)
	})
}

// Requests to an upstream that hangs end later than the window is long.
func TestBreakerOpensForAHangingUpstream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(Config{}.WithDefaults().Breaker)
		var ends []func(error)
		for range 20 {
			done, err := b.allow()
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, done)
		}
		time.Sleep(Config{}.WithDefaults().Timeout)
		for _, done := range ends {
			done(context.DeadlineExceeded)
		}
		if got := b.state(); got != Open {
			t.Errorf("20 requests timed out: %v, want open", got)
		}
	})
}

// A request that can't be sent says nothing of the upstream.
func TestMalformedRequestsAreNoFailures(t *testing.T) {
	t.Parallel()
	p, err := New(Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 30 {
		req, _ := http.NewRequest("GET", p.URL().String(), nil)
		req.Header["Foo Bar"] = []string{"1"}
		if _, err := p.Do(req); !errors.Is(err, errMalformed) {
			t.Fatal(err)
		}
	}
	if got := p.breaker.state(); got != Closed {
		t.Errorf("%v, want closed", got)
	}
}
