package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A system that fails some requests is measured to the end, and they are counted.
func TestFailedAnswersAreCounted(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "7"):
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasSuffix(r.URL.Path, "8"):
			w.Write([]byte("not the object"))
		default:
			w.Write(make([]byte, 1024))
		}
	}))
	defer server.Close()
	var paths []string
	for i := range 1000 {
		paths = append(paths, fmt.Sprint("/d/", i))
	}
	got, err := client{server.Listener.Addr().String()}.ask(t.Context(), paths)
	if want := (answers{whole: 800, failed: 100, payload: 800 * 1024}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	server.Close()
	if _, err := (client{server.Listener.Addr().String()}).ask(t.Context(), paths); err == nil {
		t.Error("nobody listens, and no error")
	}
}
