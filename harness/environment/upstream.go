package environment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
)

// upstreamName is the upstream's name among the processes, and the argument by
// which this program becomes it.
const upstreamName = "upstream"

// controlSocket is the control listener's file in the private folder: out of
// reach of any load.
const controlSocket = "control.sock"

// startUpstream starts the mock upstream with an arm for each system.
func (e *Environment) startUpstream(ctx context.Context) error {
	if err := checkFree(e.plan.Upstream.Listen); err != nil {
		return err
	}
	if e.contained {
		return e.containUpstream(ctx)
	}
	config, err := json.Marshal(upstreamConfig(e.plan, e.run, e.spawner.temp))
	if err != nil {
		return &Error{Op: "write its configuration", System: upstreamName, Err: err}
	}
	file := filepath.Join(e.spawner.temp, "upstream.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return &Error{Op: "write its configuration", System: upstreamName, Err: err}
	}
	command := append(slices.Clone(e.spawner.self), upstreamName, "--config", file)
	p, err := e.spawn(ctx, upstreamName, command)
	if err != nil {
		return err
	}
	const op = "wait until it listens"
	line, err := p.firstLine(ctx, e.health)
	if err != nil {
		return p.failed(upstreamName, op, err, p.portHint())
	}
	e.ready, err = parseReady(line, e.plan)
	if err != nil {
		p.drained()
		return p.failed(upstreamName, op, err, "")
	}
	e.control = wire.Dial(e.ready.Control)
	e.upstream = &System{Name: upstreamName, process: p, PID: int(p.pid.Load()), Supervisor: p.supervisor, Command: command, LogFile: p.logFile}
	return nil
}

// upstreamConfig is what the plan says of the upstream, with files in temp.
func upstreamConfig(plan *scenario.Plan, run, temp string) wire.Config {
	u := plan.Upstream
	c := wire.Config{
		Control:      "unix:" + filepath.Join(temp, controlSocket),
		Run:          run,
		Seed:         plan.Seed,
		Latency:      wire.Latency{Fixed: u.Latency.Fixed, Mean: u.Latency.Mean, P95: u.Latency.P95},
		Body:         wire.Body{Min: u.BodyMin, Max: u.BodyMax},
		CacheControl: u.CacheControl,
		Vary:         u.Vary,
		CAFile:       filepath.Join(temp, "ca.pem"),
		TLS:          u.TLS,
		MaxStreams:   u.MaxStreams,
		GoAway:       u.GoAway,
	}
	for _, p := range u.Paths {
		c.Paths = append(c.Paths, wire.PathConfig(p))
	}
	for _, s := range plan.Systems {
		arm := wire.ArmConfig{Name: s.Name, Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0"}
		if s.Name == scenario.New && u.Listen != "" {
			arm.Listen = u.Listen
		}
		c.Arms = append(c.Arms, arm)
	}
	return c
}

// parseReady reads the upstream's first line; it must have an arm with both
// listeners for every system of the plan.
func parseReady(line string, plan *scenario.Plan) (wire.Ready, error) {
	var ready wire.Ready
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		return ready, fmt.Errorf("its first line of output was %.200q; expected is its addresses as JSON: %w", line, err)
	}
	var errs []error
	if ready.Control == "" {
		errs = append(errs, errors.New("it names no control address"))
	}
	for _, s := range plan.Systems {
		arm := ready.Arms[s.Name]
		for _, address := range []string{arm.URL, arm.TLSURL} {
			if _, err := baseURL(address); err != nil {
				errs = append(errs, fmt.Errorf("arm %s: %w", s.Name, err))
			}
		}
	}
	return ready, errors.Join(errs...)
}

// baseURL parses the base URL of a listener.
func baseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%.200q is not the URL of a server", address)
	}
	return u, nil
}

// checkFree reports whether a fixed address can be listened on: asked here, the
// answer can name the setting that it comes from.
func checkFree(address string) error {
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return &Error{
			Op: "listen on " + address, System: upstreamName, Err: err,
			Hint: "Free that address, or choose another one with --set upstream.listen=ADDRESS (left out: any free port).",
		}
	}
	return l.Close()
}

// freeAddress returns a loopback address that nobody listens on. Until the
// system does, somebody else may take it; the system then ends at once, and
// the error says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
