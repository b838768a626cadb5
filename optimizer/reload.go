package optimizer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/guard"
	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
)

// rules are what a reload may change in a running handler. They never change
// themselves: a reload puts others in their place.
type rules struct {
	policy       httpcache.Policy
	disconnected time.Duration   // for which a stale response is used where nobody says how long, while the upstream is silent
	refreshAhead float64         // share of the lifetime; 0 or less: never
	purgeFrom    []netip.Prefix  // clients that may use PURGE
	forwarded    map[string]bool // request fields, canonical, that go up where the answer may be stored; nil: all
	query        queryRules
	maxURILength int64
	limiter      *guard.Limiter
	access       *telemetry.AccessLog
	tls          *tls.Config // for connections that begin now; nil: clients speak none
}

// newRules makes the rules of a complete, valid configuration. The buckets of a rate
// limit that stays as it is stay as they are, so that a reload is nobody's new chance.
func newRules(cfg, before Config, old *rules) (*rules, error) {
	r := &rules{
		policy: httpcache.Policy{
			DefaultTTL: *cfg.Cache.DefaultTTL, NegativeTTL: *cfg.Cache.NegativeTTL,
			StaleWhileRevalidate: cfg.Cache.StaleWhileRevalidate, StaleIfError: cfg.Cache.StaleIfError,
			ShareCookies: cfg.Cache.Cookies == cookiesRFC9111,
		},
		disconnected: *cfg.Cache.StaleWhenDisconnected, refreshAhead: *cfg.Cache.RefreshAhead,
		purgeFrom: cfg.Cache.purgePrefixes(), maxURILength: int64(cfg.Guard.MaxURILength),
		query: queryRules{ignore: cfg.Cache.IgnoreQuery, sort: cfg.Cache.SortQuery},
	}
	if len(cfg.Cache.ForwardHeaders) > 0 {
		r.forwarded = map[string]bool{"Authorization": true, "Cookie": true, "Cache-Control": true, "Pragma": true}
		for _, name := range cfg.Cache.ForwardHeaders {
			r.forwarded[textproto.CanonicalMIMEHeaderKey(name)] = true
		}
	}
	var err error
	if old != nil && cfg.Guard.RateLimit == before.Guard.RateLimit {
		r.limiter = old.limiter
	} else if r.limiter, err = guard.NewLimiter(cfg.Guard.RateLimit); err != nil {
		return nil, err
	}
	if r.tls, err = cfg.TLS.load(); err != nil {
		return nil, err
	}
	if old != nil && cfg.Telemetry == before.Telemetry && cfg.Telemetry.AccessLogFile == "" {
		r.access = old.access
		return r, nil
	}
	out := cfg.AccessLog
	if name := cfg.Telemetry.AccessLogFile; name != "" && cfg.Telemetry.AccessLog != telemetry.Off {
		// A request that began before a reload may still write to the file that was
		// current then, so nobody closes it: the runtime does when the last one is gone.
		file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("telemetry.access_log_file: %w", err)
		}
		out = file
	}
	r.access = telemetry.NewAccessLog(cfg.Telemetry.AccessLog, out)
	return r, nil
}

// forwards reports whether the upstream sees the request field where its answer may be
// stored. What it doesn't see can't make its answers vary.
func (r *rules) forwards(name string) bool { return r.forwarded == nil || r.forwarded[name] }

// Reloaded says what a reload did.
type Reloaded struct {
	Changed      []string `json:"changed"`       // keys with new values, in force for requests that begin now
	NeedsRestart []string `json:"needs_restart"` // keys whose new values aren't in force; the old ones are
}

// Reload reads the configuration anew from Config.Source and puts it in force, without
// dropping a request or a connection; the access log's file is opened anew. Keys that
// can't change in a running optimizer are listed in the answer, see Key.Live. If the
// configuration can't be read or is invalid, nothing changes, and the error says why.
// What came of it is logged in either case.
func (o *Optimizer) Reload() (Reloaded, error) {
	o.reloading.Lock()
	defer o.reloading.Unlock()
	done, err := o.reload()
	switch {
	case err != nil:
		o.cfg.Logger.Error("reload failed; the configuration stays as it was", "error", err)
	case len(done.NeedsRestart) > 0:
		o.cfg.Logger.Warn("reloaded; some keys need a restart", "changed", done.Changed, "needs_restart", done.NeedsRestart)
	default:
		o.cfg.Logger.Info("reloaded", "changed", done.Changed)
	}
	return done, err
}

func (o *Optimizer) reload() (done Reloaded, err error) {
	if o.cfg.Source == nil {
		return done, errors.New("there is nothing to read the configuration from")
	}
	if o.stopped {
		return done, errors.New("the optimizer has been stopped")
	}
	cfg, err := o.cfg.Source()
	if err != nil {
		return done, err
	}
	cfg.Logger, cfg.AccessLog, cfg.Source = o.cfg.Logger, o.cfg.AccessLog, o.cfg.Source
	if err := cfg.Validate(); err != nil {
		return done, err
	}
	cfg = cfg.WithDefaults()
	done = Reloaded{Changed: []string{}, NeedsRestart: []string{}}
	before := map[string]reflect.Value{}
	eachKey(reflect.ValueOf(&o.inForce).Elem(), "", func(name string, _ reflect.StructField, value reflect.Value) { before[name] = value })
	isLive := map[string]bool{}
	for _, key := range Keys() {
		isLive[key.Name] = key.Live
	}
	eachKey(reflect.ValueOf(&cfg).Elem(), "", func(name string, _ reflect.StructField, value reflect.Value) {
		switch old := before[name]; {
		case reflect.DeepEqual(value.Interface(), old.Interface()):
		case isLive[name] && !(cfg.TLS.on() != o.inForce.TLS.on() && strings.HasPrefix(name, "tls.")):
			done.Changed = append(done.Changed, name)
		default:
			done.NeedsRestart = append(done.NeedsRestart, name)
			value.Set(old)
		}
	})
	if err := cfg.Validate(); err != nil { // what is new against what stays
		return Reloaded{}, fmt.Errorf("without a restart for %s: %w", strings.Join(done.NeedsRestart, ", "), err)
	}
	next, err := newRules(cfg, o.inForce, o.handler.rules.Load())
	if err != nil {
		return Reloaded{}, err
	}
	old := o.handler.rules.Swap(next)
	o.inForce = cfg
	if old.access != next.access {
		o.retire(old.access)
	}
	return done, nil
}

// lastLines is how long lines of the access log are waited for when all else is done.
const lastLines = time.Second

// retire closes an access log that isn't in force any more, and waits a little, so that
// its file is usually complete when a reload returns. What its reader hasn't taken by then
// waits on, until Stop.
func (o *Optimizer) retire(log *telemetry.AccessLog) {
	closed := make(chan struct{})
	o.retired.Go(func() {
		defer close(closed)
		if err := log.Close(o.lines); err != nil {
			o.cfg.Logger.Error("an access log that isn't in force any more is incomplete", "error", err)
		}
	})
	select {
	case <-closed:
	case <-time.After(lastLines):
		o.cfg.Logger.Warn("the access log until now isn't all written yet: its reader is slow or has stopped")
	}
}

// reloadByAdmin answers POST /-/reload.
func (o *Optimizer) reloadByAdmin(w http.ResponseWriter, _ *http.Request) {
	done, err := o.Reload()
	if err != nil {
		http.Error(w, "nothing changed: "+err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answerJSON(w, done)
}

// logAccess writes the request's line of the access log, if there is one.
func (h *handler) logAccess(ctx *fasthttp.RequestCtx, begun time.Time, took time.Duration, result telemetry.Result) {
	log := h.rules.Load().access
	if !log.Enabled() {
		return
	}
	request, resp := &ctx.Request.Header, &ctx.Response
	size := int64(0)
	switch {
	case request.IsHead():
	case resp.IsBodyStream(): // Body would read it
		size = int64(resp.Header.ContentLength())
	default:
		size = int64(len(resp.Body()))
	}
	log.Write(telemetry.Access{
		Begun: begun, Client: ctx.RemoteIP().String(), Method: string(request.Method()), Host: string(request.Host()), Target: string(request.RequestURI()),
		Protocol: string(request.Protocol()), Referer: string(request.Referer()), Agent: string(request.UserAgent()),
		Status: resp.StatusCode(), Size: size, Result: result, Took: took,
	})
}
