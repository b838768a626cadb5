package load_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"phasegate/harness/load"
	"phasegate/harness/scenario"
)

func ExampleGenerator_Run() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello")
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		panic(err)
	}
	g, err := load.New(load.Config{
		Arms: []load.Arm{{Name: "new", URL: u, Share: 1, Connections: load.Connections(500, 10*time.Millisecond)}},
		Load: scenario.Load{
			Rate: []scenario.Segment{{From: 500, To: 500}},
			Path: "/items/{key}",
			Keys: scenario.Keys{Distribution: scenario.Zipf, Count: 100, Exponent: 1.1},
		},
		Length: 100 * time.Millisecond,
		Seed:   1,
	})
	if err != nil {
		panic(err)
	}
	defer g.Close()
	report, err := g.Run(context.Background())
	if err != nil {
		panic(err)
	}
	fmt.Println(report.Offered, "offered,", report.Completed, "completed")
	fmt.Println(report.Arms[0].All)
	// Output:
	// 50 offered, 50 completed
	// a cold cache can hit at most 58.0 % of these requests: 21 of 50 were the first for their target
}

func ExampleGenerator_At() {
	u, _ := url.Parse("http://127.0.0.1:8080")
	g, err := load.New(load.Config{
		Arms: []load.Arm{{Name: "old", URL: u, Share: 0.75, Connections: 16}, {Name: "new", URL: u, Share: 0.25, Connections: 16}},
		Load: scenario.Load{
			Rate:   []scenario.Segment{{From: 4, To: 4}},
			Path:   "/items/{key}",
			Keys:   scenario.Keys{Distribution: scenario.Uniform, Count: 1000},
			Writes: scenario.Writes{Share: 0.2, Method: "POST", Path: "/orders"},
		},
		Length: time.Minute,
		Seed:   2,
	})
	if err != nil {
		panic(err)
	}
	for i := range uint64(6) {
		r, _ := g.At(i)
		fmt.Println(r.Due, r.Arm, r.Method, r.Target)
	}
	// Output:
	// 0s 0 GET /items/k636
	// 250ms 0 GET /items/k492
	// 500ms 0 GET /items/k815
	// 750ms 1 POST /orders
	// 1s 1 POST /orders
	// 1.25s 0 GET /items/k819
}
