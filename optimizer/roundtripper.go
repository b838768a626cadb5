package optimizer

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/valyala/fasthttp/fasthttputil"
)

// RoundTripper returns the optimizer as the transport of an http.Client in the same
// program: the same cache, rules, limits and counters as for clients from outside,
// over connections in memory. Start isn't needed for it; Stop ends it.
//
// It is a shared cache (RFC 9111 §1): what a private cache might keep, it doesn't. It
// answers for Upstream.URL only; a request for another origin, or outside of that
// URL's path, is an error, and one for that URL itself asks for what is below it, at /. All its users count as one client for the rate limit. A
// response to a failed exchange is a 502, 503 or 504 with Cache-Status, not an error.
func (o *Optimizer) RoundTripper() http.RoundTripper {
	o.embed.Do(func() {
		o.work()
		o.memory = fasthttputil.NewInmemoryListener()
		o.transport = &http.Transport{
			DialContext:         func(context.Context, string, string) (net.Conn, error) { return o.memory.Dial() },
			DisableCompression:  true, // what is asked for is the caller's affair
			MaxIdleConnsPerHost: o.cfg.Upstream.ConnectionPoolSize,
			IdleConnTimeout:     o.cfg.Guard.IdleTimeout / 2,
		}
		o.serving.Go(func() {
			if err := o.server.Serve(o.memory); err != nil {
				o.cfg.Logger.Error("serving this program ended", "error", err)
			}
		})
	})
	return roundTripper{o}
}

type roundTripper struct{ o *Optimizer }

// RoundTrip sends one request through the cache.
func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	up := t.o.pool.URL()
	prefix := strings.TrimSuffix(up.EscapedPath(), "/")
	target, below := strings.CutPrefix(req.URL.EscapedPath(), prefix)
	if req.URL.Scheme != up.Scheme || !strings.EqualFold(req.URL.Host, up.Host) || !below || target != "" && target[0] != '/' {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("ask %s: this transport answers for %s only", req.URL.Redacted(), up)
	}
	inside := req.Clone(req.Context())
	inside.URL.Scheme = "http" // the way to the upstream has the encryption
	if target == "" {
		target = "/"
	}
	path, err := url.PathUnescape(target)
	if err != nil {
		return nil, err // can't be: EscapedPath is valid
	}
	inside.URL.Path, inside.URL.RawPath = path, target
	resp, err := t.o.transport.RoundTrip(inside)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}
