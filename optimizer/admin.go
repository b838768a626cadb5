package optimizer

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/pprof" // also puts its handlers into http.DefaultServeMux, which nobody serves here
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"phasegate/optimizer/arena"
)

// newAdmin makes the server for operators, on a listener of its own:
//
//	GET  /healthz              200 while the process lives
//	GET  /readyz               200 while requests are accepted, else 503
//	GET  /metrics              Prometheus text
//	GET  /version              JSON: version, go
//	GET  /cache?path=PATTERN&limit=N    JSON: how full the cache is, and N (100) of the entries that fit, see snapshot
//	GET  /debug/pprof/         profiles, as Go programs have them; only where admin.pprof is set
//	POST /-/reload             the configuration anew, see Reload: JSON with changed and
//	                           needs_restart, or 422 and the fault
//	POST /invalidate?key=KEY            one resource with all its variants; KEY is a URL
//	                                    (scheme ignored), HOST/PATH, or /PATH for that path
//	                                    on every host; path with query, exactly as requested, but for
//	                                    what cache.ignore_query and sort_query say
//	POST /invalidate?path=PATTERN       resources that fit, named as by key; * is any run of characters,
//	                                    the query counts if PATTERN has a ?
//	POST /invalidate?tag=TAG            responses with TAG in Surrogate-Key or Cache-Tag
//	POST /invalidate?dependency=KEY     that resource, and all that name it, or each other in turn,
//	                                    by Link: <URL>; rel="inv-by", as clients or the upstream call
//	                                    it. What isn't stored names nothing: if a names b and b names c,
//	                                    and b has been evicted, c leaves a as it is
//	POST /invalidate?version=V          responses with Content-Version: V
//	POST /invalidate?version_not=V      responses with another Content-Version
//	POST /invalidate?all                everything
//
// Of these one kind at a time; all but version_not and all may be repeated. A query that
// can't be read to its end, or asks for something else, is refused with 400. They answer
// when they are done, with {"removed": n}: no request that begins afterwards
// gets a response fetched before, even if that is under way. n counts cache entries; a
// resource that varies counts once by key, and with its variants otherwise.
func (o *Optimizer) newAdmin() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !o.ready.Load() {
			http.Error(w, "not accepting requests", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", o.handler.metrics.Handler())
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, map[string]string{"version": Version, "go": runtime.Version()})
	})
	mux.HandleFunc("POST /invalidate", o.invalidate)
	mux.HandleFunc("POST /-/reload", o.reloadByAdmin)
	mux.HandleFunc("GET /cache", o.snapshot)
	if o.cfg.Admin.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
}

// queryOf reads the parameters of a request. What can't be read or isn't known is an
// error: an operator is not to believe that it was done.
func queryOf(r *http.Request, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("read the query %s: %w", r.URL.RawQuery, err)
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("found ?%s=, must be one of %s", name, strings.Join(known, ", "))
		}
	}
	return query, nil
}

func (o *Optimizer) invalidate(w http.ResponseWriter, r *http.Request) {
	query, err := queryOf(r, "key", "path", "tag", "dependency", "version", "version_not", "all")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	kinds := slices.Collect(maps.Keys(query))
	if len(kinds) != 1 {
		http.Error(w, "give one kind of ?key=, ?path=, ?tag=, ?dependency=, ?version=, ?version_not= or ?all, found "+strconv.Itoa(len(kinds)), http.StatusBadRequest)
		return
	}
	kind := kinds[0]
	values, removed := query[kind], 0
	if kind != "all" && slices.Contains(values, "") {
		http.Error(w, kind+" is empty", http.StatusBadRequest)
		return
	}
	if kind == "version_not" && len(values) > 1 {
		http.Error(w, "version_not must be given once, found "+strings.Join(values, ", "), http.StatusBadRequest)
		return
	}
	store := o.handler.store
	switch kind {
	case "all":
		removed = store.invalidateFunc(func(string, *object) bool { return true })
	case "path":
		patterns, err := o.handler.readPatterns(values)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		removed = store.invalidatePaths(patterns)
	case "tag":
		removed = store.invalidateTags(values)
	case "version", "version_not":
		removed = store.invalidateVersions(values, kind == "version_not")
	case "key", "dependency":
		keys := make([]string, len(values))
		for i, value := range values {
			var ok bool
			if keys[i], ok = o.handler.cacheKey(value); !ok || kind == "dependency" && keys[i][0] == '/' {
				http.Error(w, kind+" must be a URL or HOST/PATH (a key also /PATH), found "+value, http.StatusBadRequest)
				return
			}
			keys[i] = string(o.handler.rules.Load().query.normal([]byte(keys[i])))
		}
		if kind == "dependency" {
			removed = o.handler.invalidateDependents(keys)
			break
		}
		for _, key := range keys {
			switch {
			case key[0] == '/':
				removed += store.invalidateFunc(func(primary string, _ *object) bool { return primary[strings.IndexByte(primary, '/'):] == key })
			case store.invalidate([]byte(key)):
				removed++
			}
		}
	}
	o.cfg.Logger.Info("invalidated", "kind", kind, "values", values, "removed", removed)
	answerJSON(w, map[string]int{"removed": removed})
}

// cacheKey reads how an operator names a resource.
func (h *handler) cacheKey(text string) (key string, ok bool) {
	if strings.HasPrefix(text, "/") {
		return text, true
	}
	if rest, is := withoutScheme(text); is {
		text = rest
		if at := strings.IndexAny(text, "/?"); at < 0 {
			text += "/"
		} else if text[at] == '?' {
			text = text[:at] + "/" + text[at:]
		}
	}
	host, path, ok := strings.Cut(text, "/")
	return strings.ToLower(string(h.withoutPort([]byte(host)))) + "/" + path, ok && host != ""
}

// withoutScheme is what follows http:// or https://, and whether that was there.
func withoutScheme(text string) (string, bool) {
	scheme, rest, is := strings.Cut(text, "://")
	if is && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		return rest, true
	}
	return text, false
}

// readPatterns reads how an operator names many.
func (h *handler) readPatterns(texts []string) (all []pattern, err error) {
	for _, text := range texts {
		patterns, ok := patternsOf(text)
		if !ok {
			return nil, fmt.Errorf("path must be a URL, HOST/PATH or /PATH, with * for any run of characters, found %s", text)
		}
		for _, p := range patterns {
			p.host = string(h.withoutPort([]byte(p.host)))
			all = append(all, p)
		}
	}
	return all, nil
}

// Bounds of one snapshot, which lies on the heap.
const (
	usuallyListed = 100
	mostListed    = 2000
	mostText      = 512 << 10 // bytes of keys and tags
)

// contents is a snapshot of the cache.
type contents struct {
	Entries   int64         `json:"entries"`
	Bytes     int64         `json:"bytes"`
	MaxBytes  int64         `json:"max_bytes"`
	Evictions uint64        `json:"evictions"` // for want of room, since the start
	Matching  int           `json:"matching"`  // entries that fit what was asked for
	Truncated bool          `json:"truncated"` // not all of them are listed
	Listed    []listedEntry `json:"listed"`    // in no order
}

// listedEntry is one entry. A resource that varies has one that says so, and one for each
// of its responses, all with the same key.
type listedEntry struct {
	Key       string   `json:"key"`  // HOST/PATH
	Kind      string   `json:"kind"` // response, varying, or passing: the last one couldn't be shared
	Status    int      `json:"status,omitempty"`
	Bytes     int64    `json:"bytes"` // of memory
	Age       *int64   `json:"age_seconds,omitempty"`
	Remaining *int64   `json:"remaining_seconds,omitempty"` // of its lifetime; below 0: it is stale for so long
	Tags      []string `json:"tags,omitempty"`
}

// snapshot answers GET /cache. It looks at every entry, a small part of the cache locked
// at a time, so what changes meanwhile may be in it or not.
func (o *Optimizer) snapshot(w http.ResponseWriter, r *http.Request) {
	query, err := queryOf(r, "path", "limit")
	limit := usuallyListed
	if err == nil && query.Has("limit") {
		if limit, err = strconv.Atoi(query.Get("limit")); err != nil || limit < 0 || limit > mostListed {
			err = fmt.Errorf("limit must be 0 to %d, found %s", mostListed, query.Get("limit"))
		}
	}
	patterns := []pattern{{"*", "*"}}
	if err == nil && query.Has("path") {
		patterns, err = o.handler.readPatterns(query["path"])
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	stats := o.handler.store.cache.Stats()
	found := contents{Entries: stats.Entries, Bytes: stats.Bytes, MaxBytes: o.cfg.CacheBytes(), Evictions: stats.Evictions, Listed: []listedEntry{}}
	now, text := time.Now(), 0
	o.handler.store.cache.Each(func(key, value []byte) {
		primary, _, _ := strings.Cut(unsafe.String(unsafe.SliceData(key), len(key)), "\x00")
		if !fitsAny(patterns, primary) {
			return
		}
		found.Matching++
		if len(found.Listed) == limit || text > mostText {
			return
		}
		e := list(primary, viewOf(value), now)
		e.Bytes = arena.Size(len(key), len(value))
		text += len(e.Key)
		for _, tag := range e.Tags {
			text += len(tag)
		}
		found.Listed = append(found.Listed, e)
	})
	found.Truncated = len(found.Listed) < found.Matching
	answerJSON(w, found)
}

// list copies what is told of an entry.
func list(primary string, o object, now time.Time) listedEntry {
	e := listedEntry{Key: strings.Clone(primary), Kind: [...]string{"response", "varying", "passing"}[o.kind]}
	switch o.kind {
	case stored:
		age := o.fresh.Age(now)
		e.Status, e.Age, e.Remaining = int(o.status), new(int64(age/time.Second)), new(int64((o.fresh.Lifetime-age)/time.Second))
		for tag := range o.tags {
			e.Tags = append(e.Tags, string(tag))
		}
	case passing:
		e.Remaining = new((o.asked - now.UnixNano()) / int64(time.Second))
	}
	return e
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // fails only if the client has gone
}
