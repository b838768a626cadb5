package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A pattern that finds nothing must not become a figure of zero, and a tool's
// new output must not pass for the old one.
func TestRead(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "h2load.log")
	if err := os.WriteFile(log, []byte("1\t200\t1500\n2\t200\t2500\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rated := job{rate: 500, length: 8 * time.Second, scratch: filepath.Dir(log)}
	for _, tt := range []struct {
		tool string
		job  job
		out  string
		want figures
	}{
		{"phasegate", job{}, `{"Requests":4000,"Seconds":8.1,"P99":1920000000,"LagP99":150000}`, figures{4000, 8.1, 1920 * time.Millisecond, 150 * time.Microsecond}},
		{"fortio", job{}, `{"ActualDuration":8000000000,"RetCodes":{"200":4000},"DurationHistogram":{"Count":4000,"Percentiles":[{"Percentile":99,"Value":0.0015}]}}`,
			figures{Requests: 4000, Seconds: 8, P99: 1500 * time.Microsecond}},
		{"h2load", rated, "requests: 4000 total, 4000 started, 4000 done, 4000 succeeded, 0 failed\n", figures{Requests: 4000, Seconds: 8, P99: 2500 * time.Microsecond}},
		{"hey", job{}, "  Total:	8.0041 secs\n  99%% in 0.0016 secs\n  [200]	4000 responses\n", figures{Requests: 4000, Seconds: 8.0041, P99: 1600 * time.Microsecond}},
		{"k6", job{}, `{"requests":4000,"milliseconds":8000.5,"p99":1.25}`, figures{Requests: 4000, Seconds: 8.0005, P99: 1250 * time.Microsecond}},
		{"wrk", job{}, "     99%    3.02ms\n  451200 requests in 8.00s, 1.02GB read\n", figures{Requests: 451200, Seconds: 8, P99: 3020 * time.Microsecond}},
	} {
		for _, tool := range tools {
			if tool.name != tt.tool {
				continue
			}
			if got, err := tool.read(tt.job, []byte(tt.out)); err != nil || got != tt.want {
				t.Errorf("%s: %+v, %v, want %+v", tt.tool, got, err, tt.want)
			}
			if got, err := tool.read(tt.job, []byte("something else")); err == nil {
				t.Errorf("%s: output that isn't its own gives %+v", tt.tool, got)
			}
		}
	}
}

// 40 of 4,000 requests may be slower than p99: those due in the stall's first
// 80 ms, so p99 is the latency of what is due then.
func TestTruth(t *testing.T) {
	t.Parallel()
	if got := truth(); got != 1920*time.Millisecond {
		t.Errorf("p99 is %s, want 1.92 s", got)
	}
}

// A row that is left out looks like a tool that nobody tried.
func TestToolsSayWhatTheyLack(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, connections := range []int{10, 1000} {
			for _, tool := range tools {
				j := job{url: "http://127.0.0.1:1", rate: stallRate, connections: connections, length: stallLength, http2: http2, scratch: t.TempDir()}
				if !tool.loadOnly && tool.args(j) == nil && tool.lacks == "" {
					t.Errorf("%s, %d connections over %s: not offered, and no word why", tool.name, connections, protocolOf(j))
				}
			}
		}
	}
}
