package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"time"

	"phasegate/harness/load"
	"phasegate/harness/recording"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// figures are what a tool says of its run.
type figures struct {
	Requests int64         // that got an answer
	Seconds  float64       // that it took
	P99      time.Duration // of what the tool calls latency
	LagP99   time.Duration // of our own generator only
}

// generate is our generator as a run uses it: every answer verified, every
// outcome recorded in a timeline.
func generate(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("phasegate", flag.ContinueOnError)
	target := flags.String("url", "", "base URL")
	rate := flags.Float64("rate", 0, "requests per second; 0 is as many as the connections take")
	length := flags.Duration("length", 0, "of the load")
	connections := flags.Int("connections", 0, "at most")
	times := flags.String("times", "", "access log whose times of arrival are kept, instead of an even rate")
	protocol := flags.String("protocol", "http/1.1", "http/1.1 or h2c")
	if err := flags.Parse(args); err != nil {
		return err
	}
	u, err := url.Parse(*target)
	if err != nil {
		return err
	}
	keys := scenario.Keys{Distribution: scenario.Uniform, Count: 1}
	var arrivals *recording.Recording
	if *times != "" {
		keys = scenario.Keys{AccessLog: *times, PaceLog: true}
		if arrivals, err = recording.Read(keys); err != nil {
			return err
		}
	}
	recorder, err := timeline.New(timeline.Config{Systems: []string{scenario.New}})
	if err != nil {
		return err
	}
	g, err := load.New(load.Config{
		Arms: []load.Arm{{Name: scenario.New, URL: u, Share: 1, Connections: *connections}},
		Load: scenario.Load{
			Rate: []scenario.Segment{{From: *rate, To: *rate}}, Max: *rate == 0,
			Protocols: []scenario.ProtocolShare{{Protocol: scenario.Protocol(*protocol), Share: 1}},
			Path:      path, Keys: keys,
			Timeout: 30 * time.Second, Verify: true,
		},
		Recording: arrivals, Length: *length, Sink: recorder,
	})
	if err != nil {
		return err
	}
	defer g.Close()
	report, err := g.Run(ctx)
	if err != nil {
		return err
	}
	w := recorder.Window(0, 0, *length)
	f := figures{Requests: w.Good(), Seconds: report.Elapsed.Seconds(), LagP99: report.Lag.P99}
	f.P99, _ = timeline.Quantile(w.Latency, 0.99)
	return json.NewEncoder(os.Stdout).Encode(f)
}
