package load

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// Every client sends its next request when its last has ended: the rate is the
// number of clients over the service time, and nobody is ever due before being
// sent, which is why a stall hardly shows.
func TestMaximumIsAClosedLoop(t *testing.T) {
	t.Parallel()
	mixed := []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 0.5}, {Protocol: scenario.H2C, Share: 0.5}}
	for _, tt := range []struct {
		why       string
		protocols []scenario.ProtocolShare
		want      map[string]Spoken
	}{
		{"HTTP/1.1: 8 clients, 10 ms each, one second", nil, map[string]Spoken{"http/1.1": {"http/1.1", 800, 8}}},
		{"HTTP/2: every client has a connection of its own", over(scenario.H2C), map[string]Spoken{"h2c": {"h2c", 800, 8}}},
		{"a mix: each protocol has its share of the clients", mixed, map[string]Spoken{"http/1.1": {"http/1.1", 400, 4}, "h2c": {"h2c", 400, 4}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &memory{}
			load := smallLoad()
			load.Rate, load.Max, load.Protocols = nil, true, tt.protocols
			arm := oneArm(t, "http://h.example")
			arm.Connections = 8
			g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: time.Second, Warmup: 500 * ms, Sink: sink})
			o := &origin{}
			s := serveInBubble(t, g, 10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(10 * ms)
				o.ServeHTTP(w, r)
			}))
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			a := report.Arms[0]
			if a.Offered != 800 || a.Proven != 800 || a.All.Cacheable != 800 || a.Steady.Cacheable != 400 || report.Completed != 800 || report.Lag.Requests != 0 {
				t.Errorf("%s: %+v", tt.why, report)
			}
			for _, spoken := range a.Protocols {
				if spoken != tt.want[spoken.Protocol] {
					t.Errorf("%s: spoken was %+v, want %+v", tt.why, spoken, tt.want)
				}
			}
			if len(a.Protocols) != len(tt.want) {
				t.Errorf("%s: spoken was %+v, want %+v", tt.why, a.Protocols, tt.want)
			}
			for _, o := range sink.byDue() {
				if o.Wait != 0 || o.Latency != 10*ms || o.Service != o.Latency {
					t.Fatalf("%s: %+v", tt.why, o)
				}
			}
			s.Close()
			g.Close()
			synctest.Wait()
		})
	}
}

// The positions are those of any other run, in order, so two arms get their
// shares however fast each of them is.
func TestMaximumKeepsTheSplit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		load := smallLoad()
		load.Rate, load.Max = nil, true
		slow, fast := oneArm(t, "http://slow.example"), oneArm(t, "http://fast.example")
		slow.Share, fast.Share = 0.25, 0.75
		g := generator(t, Config{Arms: []Arm{slow, fast}, Load: load, Length: 10 * time.Second, Seed: 3})
		o := &origin{}
		s := serveInBubble(t, g, 10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "slow.example" {
				time.Sleep(90 * ms)
			}
			time.Sleep(10 * ms)
			o.ServeHTTP(w, r)
		}))
		report, err := g.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := [2]uint64{}
		for i := range report.Offered {
			want[g.split.at(i)]++
		}
		if got := [2]uint64{report.Arms[0].Offered, report.Arms[1].Offered}; got != want || report.Offered < 4000 {
			t.Errorf("offered were %v, want %v", got, want)
		}
		s.Close()
		g.Close()
		synctest.Wait()
	})
}

// Who isn't let in knocks again after a while, not at once; and a stop is a
// stop.
func TestMaximumWithoutAServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{}
		load := smallLoad()
		load.Rate, load.Max = nil, true
		arm := oneArm(t, "http://h.example")
		arm.Connections = 2
		g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: time.Hour, Sink: sink})
		var mu sync.Mutex
		dials := 0
		g.newEngine = newGoroutines
		g.dial = func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dials++
			return nil, errors.New("connection refused")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second-ms)
		defer cancel()
		report, err := g.Run(ctx)
		if err == nil || !report.Interrupted || dials != 200 || sink.classes()[timeline.Transport] != 200 {
			t.Errorf("%v, %d dials, classes %v", err, dials, sink.classes())
		}
	})
}
