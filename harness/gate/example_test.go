package gate_test

import (
	"fmt"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

func ExampleJudge() {
	c, err := scenario.ParseCondition("p95_latency < 10ms")
	if err != nil {
		fmt.Println(err)
		return
	}
	g := scenario.Gate{Condition: c, System: scenario.New}
	recorder, err := timeline.New(timeline.Config{
		Systems: []string{scenario.New},
		Over:    gate.Thresholds([]scenario.Gate{g}, nil),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 500 { // every fifth waits for the upstream
		o := timeline.Outcome{Due: time.Duration(i) * 20 * time.Millisecond, Latency: 2 * time.Millisecond, Cacheable: true, Proven: true}
		if i%5 == 0 {
			o.Latency, o.Blocking = 464*time.Millisecond, true
		}
		recorder.Offer(0, o.Due)
		recorder.Record(0, o)
	}
	j := gate.Judge(g, gate.Data{Windows: map[string]timeline.Window{
		scenario.New: recorder.Window(0, 0, 10*time.Second),
	}}, gate.Look{})
	fmt.Println(j.Verdict)
	fmt.Println(j.Reason)
	// Output:
	// fail
	// p95 is 464ms: 20 % of 500 requests took 10ms or longer (17.1 % to 23.2 % at 95 % confidence); 20 % of 500 requests waited for the upstream (464ms on average); p95_latency < 10ms allows fewer than 5 %
}

func ExampleEstimate() {
	m, _ := scenario.Lookup("memory")
	value, missing := gate.Estimate(m, scenario.New, gate.Data{
		Missing: map[string]map[string]string{scenario.New: {"memory": "the system is a bare URL"}},
	})
	fmt.Println(value == nil, missing)
	// Output: true the system is a bare URL
}
