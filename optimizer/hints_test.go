package optimizer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// One client that doesn't take his hints keeps nobody waiting whose answers come on the
// same connection of the upstream; what comes beyond a few of them is dropped.
func TestHintsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	const sent = maxHints + 5
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range sent {
			w.Header().Set("Link", fmt.Sprint("</", i, ">; rel=preload"))
			w.WriteHeader(http.StatusEarlyHints)
		}
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{Protocols: server.Config.Protocols, MaxConnsPerHost: 1}
	t.Cleanup(transport.CloseIdleConnections)
	ask := func(f *fetch) (done func()) {
		ctx, done := f.passInterim(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return done
	}
	takes := make(chan struct{})
	var slow, quick []string
	stuck := &fetch{interim: func(_ int, h http.Header) { <-takes; slow = append(slow, h.Get("Link")) }}
	done := ask(stuck) // answered, though no hint has been taken
	free := &fetch{interim: func(_ int, h http.Header) { quick = append(quick, h.Get("Link")) }}
	ask(free)()
	free.hints.passed()
	done()
	stuck.hints.add(hint{103, http.Header{"Link": {"late"}}}, stuck.interim)
	close(takes)
	stuck.hints.passed()
	if len(slow) < maxHints || len(slow) > maxHints+1 || slices.Contains(slow, "late") { // one more if it was being passed on
		t.Errorf("the slow client got %v; want the first %d or one more", slow, maxHints)
	}
	if len(quick) == 0 || quick[0] != "</0>; rel=preload" {
		t.Errorf("the quick client got %v", quick)
	}
	for i, link := range slow {
		if link != fmt.Sprint("</", i, ">; rel=preload") {
			t.Errorf("hint %d is %s", i, link)
		}
	}
}
