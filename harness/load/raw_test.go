package load

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phasegate/harness/recording"
	"phasegate/harness/scenario"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// What is written is what vegeta's own decoders read, in each encoding: every
// request of warm-up and steady state with its due time, and the target's
// header field and body arrive at the server.
func TestRawIsReadByVegeta(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"r.bin", "r.JSON", "r.csv"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("X-Token") == "" && r.Method == "POST" || r.Method == "POST" && string(body) != "FOO" {
					w.WriteHeader(http.StatusBadRequest)
				}
				if r.URL.Path == "/broken" {
					w.WriteHeader(http.StatusBadGateway)
				}
				fmt.Fprint(w, "hello")
			}))
			targets := recorded(t, recording.ReadTargets, `{"method":"POST","url":"http://h/post","body":"Rk9P","header":{"X-Token":["1"]}}`+"\n"+`{"method":"GET","url":"/broken"}`)
			path := filepath.Join(t.TempDir(), name)
			raw, err := CreateRaw(path)
			if err != nil {
				t.Fatal(err)
			}
			var began time.Time
			g := generator(t, Config{
				Arms: []Arm{oneArm(t, url)}, Recording: targets, Raw: raw,
				Load:   scenario.Load{Rate: flat(100), Timeout: time.Minute, Keys: scenario.Keys{Repeat: true}},
				Length: 200 * time.Millisecond, Warmup: 100 * time.Millisecond,
				Begin: func(now time.Time) { began = now },
			})
			if _, err := g.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := raw.Close(); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			decode := vegeta.DecoderFor(f)
			if decode == nil {
				t.Fatal("vegeta doesn't know the encoding")
			}
			seen := map[uint64]bool{}
			for {
				var r vegeta.Result
				if err := decode(&r); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				seen[r.Seq] = true
				want := vegeta.Result{Attack: "new", Seq: r.Seq, Code: 200, Method: "POST", URL: url + "/post", BytesIn: 5, BytesOut: 3, Latency: r.Latency}
				if r.Seq%2 == 1 {
					want.Code, want.Method, want.URL, want.BytesOut, want.Error = 502, "GET", url+"/broken", 0, "status 502"
				}
				want.Timestamp = began.Add(time.Duration(r.Seq) * 10 * time.Millisecond)
				if r.Code == 502 && r.Latency < time.Minute || r.Latency <= 0 {
					t.Errorf("request %d took %s", r.Seq, r.Latency)
				}
				if !r.Equal(want) {
					t.Errorf("request %d is %+v, want %+v", r.Seq, r, want)
				}
			}
			if len(seen) != 20 {
				t.Errorf("%d of 20 requests", len(seen))
			}
		})
	}
}

// A disk that stands still makes nobody wait: what doesn't fit into the queue
// is dropped, and told of.
func TestRawDropsRatherThanWaits(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	stuck := make(chan struct{})
	r := &Raw{file: f, queue: make(chan vegeta.Result, 10), done: make(chan struct{})}
	go r.write(f, func(io.Writer) vegeta.Encoder {
		return func(*vegeta.Result) error { <-stuck; return nil }
	})
	for range 30 { // would hang here
		r.add(vegeta.Result{})
	}
	close(stuck)
	err = r.Close()
	if err == nil || !strings.Contains(err.Error(), "results are missing in "+f.Name()) {
		t.Errorf("%v", err)
	}
	if n := r.dropped.Load(); n < 19 || n > 20 {
		t.Errorf("%d of 30 dropped, with room for 10 and one under way", n)
	}
}

// A full disk ends the file, not the run.
func TestRawTellsOfAFullDisk(t *testing.T) {
	t.Parallel()
	r, err := CreateRaw("/dev/full")
	if err != nil {
		t.Skip(err)
	}
	for range 1000 {
		r.add(vegeta.Result{URL: strings.Repeat("x", 1000)})
	}
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "it isn't complete") {
		t.Errorf("%v", err)
	}
	if _, err := CreateRaw(filepath.Join(t.TempDir(), "no", "folder")); err == nil {
		t.Error("a file in no folder is created")
	}
}

// What a result costs the goroutine that writes, in each encoding.
func BenchmarkRawEncode(b *testing.B) {
	for name, encoder := range map[string]func(io.Writer) vegeta.Encoder{"gob": vegeta.NewEncoder, "json": vegeta.NewJSONEncoder, "csv": vegeta.NewCSVEncoder} {
		b.Run(name, func(b *testing.B) {
			encode := encoder(io.Discard)
			r := vegeta.Result{Attack: "new", Code: 200, Timestamp: time.Now(), Latency: time.Millisecond, BytesIn: 1024, Method: "GET", URL: "http://127.0.0.1:8080/items/k12345"}
			for b.Loop() {
				r.Seq++
				if err := encode(&r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
