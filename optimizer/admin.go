package optimizer

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"
)

// newAdmin makes the server for operators, on a listener of its own:
//
//	GET  /healthz              200 while the process lives
//	GET  /readyz               200 while requests are accepted, else 503
//	GET  /metrics              Prometheus text
//	GET  /version              JSON: version, go
//	POST /invalidate?key=KEY   drops one resource with all its variants; KEY is a URL
//	                           (scheme ignored), HOST/PATH, or /PATH for that path on
//	                           every host; path with query, exactly as requested
//	POST /invalidate?all       drops everything
//
// Both invalidations answer when they are done, with {"removed": n}: no request
// that begins afterwards gets a response fetched before. n counts cache entries; a
// resource that varies counts once by key, and with its variants by path.
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
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
}

func (o *Optimizer) invalidate(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	key, removed := query.Get("key"), 0
	store := o.handler.store
	switch {
	case query.Has("all") == query.Has("key"):
		http.Error(w, "give either ?key=URL, ?key=HOST/PATH, ?key=/PATH, or ?all", http.StatusBadRequest)
		return
	case query.Has("all"):
		removed = store.invalidateFunc(func(string) bool { return true })
	case strings.HasPrefix(key, "/"):
		removed = store.invalidateFunc(func(primary string) bool { return primary[strings.IndexByte(primary, '/'):] == key })
	default:
		if u, err := url.Parse(key); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
			key = u.Host + u.RequestURI()
		}
		host, path, ok := strings.Cut(key, "/")
		if !ok || host == "" {
			http.Error(w, "key must be a URL, HOST/PATH or /PATH, found "+key, http.StatusBadRequest)
			return
		}
		if store.invalidate([]byte(strings.ToLower(host) + "/" + path)) {
			removed = 1
		}
	}
	o.cfg.Logger.Info("invalidated", "key", key, "removed", removed)
	answerJSON(w, map[string]int{"removed": removed})
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // fails only if the client has gone
}
