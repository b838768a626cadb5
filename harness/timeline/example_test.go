package timeline_test

import (
	"fmt"
	"time"

	"phasegate/harness/timeline"
)

func ExampleRecorder() {
	r, err := timeline.New(timeline.Config{
		Systems: []string{"old", "new"},
		Over:    []time.Duration{10 * time.Millisecond}, // asked by p95_latency < 10ms
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 200 { // 100/s for two seconds; every tenth waits for the upstream
		due := time.Duration(i) * 10 * time.Millisecond
		r.Offer(1, due)
		latency := 2 * time.Millisecond
		if i%10 == 0 {
			latency = 464 * time.Millisecond
		}
		r.Record(1, timeline.Outcome{Due: due, Latency: latency, Service: latency})
	}
	w := r.Window(1, 0, 2*time.Second)
	p50, _ := timeline.Quantile(w.Latency, 0.5)
	fmt.Printf("%d requests in %g s, p50 %v, %d took 10 ms or longer\n", w.Requests, w.Seconds, p50, w.Over[10*time.Millisecond])
	// Output: 200 requests in 2 s, p50 2ms, 20 took 10 ms or longer
}
