package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is a breaker's state, in the order of how much it lets through.
type State int

// A closed breaker lets everything through, a half-open one a few trials.
const (
	Closed State = iota
	HalfOpen
	Open
)

// String names the state as metrics and logs show it.
func (s State) String() string { return [...]string{"closed", "half-open", "open"}[s] }

// OpenError says that a request wasn't sent because the breaker is open, or
// half-open with its trials under way.
type OpenError struct {
	RetryAfter time.Duration // until the next trial may go through
}

// Error says so in words.
func (e *OpenError) Error() string {
	return fmt.Sprintf("circuit breaker open, next trial in %v", e.RetryAfter)
}

var errStatus = errors.New("upstream answered with an error status")

// breaker is gobreaker's two-step breaker on a rolling window, which also knows
// when it will let requests through again.
type breaker struct {
	cb      *gobreaker.TwoStepCircuitBreaker[struct{}]
	openFor time.Duration
	opened  atomic.Int64 // Unix nanoseconds of the last opening
}

// buckets is how finely the window rolls.
const buckets = 10

func newBreaker(cfg Breaker) *breaker {
	b := &breaker{openFor: cfg.OpenFor}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(cfg.HalfOpenRequests),
		Interval:     cfg.Window,
		BucketPeriod: max(1, cfg.Window/buckets),
		Timeout:      cfg.OpenFor,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			// Not c.Requests: that counts those still under way, and the excluded.
			ended := c.TotalSuccesses + c.TotalFailures
			return int(ended) >= cfg.MinRequests && float64(c.TotalFailures) >= cfg.ErrorShare*float64(ended)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.opened.Store(time.Now().UnixNano())
			}
		},
	})
	return b
}

// allow asks for leave to send; done must be called once with the outcome.
func (b *breaker) allow() (done func(error), err error) {
	report, err := b.cb.Allow()
	if err != nil {
		left := b.openFor - time.Since(time.Unix(0, b.opened.Load()))
		return nil, &OpenError{RetryAfter: max(left, time.Second)}
	}
	return func(outcome error) { b.book(report, outcome) }, nil
}

// book counts an outcome at the moment it is known. gobreaker books it under the moment
// of its request instead, so that one that took longer than the window, as every
// request to a hanging upstream does, would never count. In the closed state, which
// alone has a window, it therefore counts as a request of now.
func (b *breaker) book(report func(error), outcome error) {
	if b.cb.State() == gobreaker.StateClosed {
		report(context.Canceled)
		var err error
		if report, err = b.cb.Allow(); err != nil {
			return // just opened
		}
	}
	report(outcome)
}

func (b *breaker) state() State {
	switch b.cb.State() {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	}
	return Closed
}
