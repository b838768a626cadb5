package environment

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http2"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
)

// errDied says that a process ended while its answer was waited for.
var errDied = errors.New("the process ended")

// refusedError is an answer that isn't a healthy one.
type refusedError struct{ status int }

func (e *refusedError) Error() string {
	return fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
}

// prober asks systems for wire.ProbePath, which the upstream's ledger counts
// apart.
type prober struct{ client *http.Client }

// prober returns one that trusts whom the load trusts, and speaks h2c where the
// load speaks nothing else: a system may take nothing else then.
func (e *Environment) prober() (*prober, error) {
	roots, err := e.Authorities()
	if err != nil {
		return nil, err
	}
	// A connection for each probe, straight to the system: no proxy from the
	// environment, nothing left open.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}
	if e.speaks(scenario.H2C) && !e.speaks(scenario.HTTP1) {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
		//lint:ignore SA1019 Go 1.26's own copy of x/net locks up for ever when a stream's window overflows (RFC 9113 §6.9.1)
		if err := http2.ConfigureTransport(transport); err != nil {
			return nil, fmt.Errorf("have x/net speak HTTP/2 with the systems: %w", err)
		}
	}
	return &prober{&http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       2 * time.Second,
	}}, nil
}

// waitFor waits until the system at base answers; see wait.
func (e *Environment) waitFor(ctx context.Context, base *url.URL, died <-chan struct{}, timeout time.Duration, healthy func(status int) bool) error {
	p, err := e.prober()
	if err != nil {
		return err
	}
	return p.wait(ctx, base, died, timeout, healthy)
}

// wait probes base until it answers with a status that is healthy; then it
// returns nil. It gives up after the timeout, when died is closed (errDied),
// or when ctx ends. The error says what was asked for how long, and wraps the
// last probe's.
func (p *prober) wait(ctx context.Context, base *url.URL, died <-chan struct{}, timeout time.Duration, healthy func(status int) bool) error {
	target := base.JoinPath(wire.ProbePath).String()
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		status, err := p.probe(bounded, target)
		switch {
		case err == nil && healthy(status):
			return nil
		case err == nil:
			last = &refusedError{status}
		case last == nil || bounded.Err() == nil: // being cut off hides what was before
			last = err
		}
		select {
		case <-time.After(pause):
			continue
		case <-died:
			return errDied
		case <-bounded.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("no healthy answer to GET %s within %v; the last probe: %w", target, timeout, last)
	}
}

func (p *prober) probe(ctx context.Context, target string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		// The client's own error repeats the method and the URL.
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, err
}
