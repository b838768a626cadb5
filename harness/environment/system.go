package environment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
)

// System is one running system: what load is sent to, and the process that
// answers, if it is ours.
type System struct {
	Name       string        // of the arm
	Kind       scenario.Kind // "" for the mock upstream
	URL        *url.URL      // where load is sent
	Admin      *url.URL      // the optimizer's own listener for metrics and health; nil otherwise
	Metrics    *url.URL      // its metrics in the Prometheus text format; nil where it offers none
	PID        int           // root of its process tree, 0 if it isn't ours
	Supervisor int           // all descendants of this process are the system's, daemonised ones too; 0 if it isn't ours
	Command    []string      // as executed, after substitution; nil if it isn't ours
	LogFile    string        // both outputs of its processes; "" if it isn't ours
	Setup      Setup
	Container  *Container // that it runs in, instead of PID and Supervisor; nil if it doesn't

	process *process // nil if it isn't ours
}

// Setup is how a system was set up, as far as that is known: what must be alike
// where two are compared.
type Setup struct {
	Version    string // "" if unknown, as nil is in the others
	CacheBytes *int64 // room for stored responses
	AccessLog  *bool  // a line is written for every request
}

// Died returns a channel that is closed when the system's process has ended,
// by itself or by Stop. It is nil, so never ready, if the process isn't ours.
func (s *System) Died() <-chan struct{} {
	if s.process == nil {
		return nil
	}
	return s.process.died
}

// Exit says how the process ended by itself: "exit status 1 after 12.3 s". It
// is "" while it runs, if it was stopped, and if it isn't ours.
func (s *System) Exit() string {
	if s.process == nil {
		return ""
	}
	return s.process.exited()
}

// LogTail returns the last n lines of the log (50 at most), oldest first.
func (s *System) LogTail(n int) []string {
	if s.process == nil {
		return nil
	}
	return s.process.log.lines(n)
}

// startSystem starts a system by its kind and waits until it answers.
func (e *Environment) startSystem(ctx context.Context, s *scenario.System) (*System, error) {
	switch s.Kind {
	case scenario.KindDirect:
		return e.direct(s)
	case scenario.KindURL:
		return e.reach(ctx, s)
	case scenario.KindOptimizer:
		return e.startOptimizer(ctx, s)
	case scenario.KindNginx, scenario.KindVarnish, scenario.KindHAProxy:
		return e.startPackaged(ctx, s)
	case scenario.KindCommand:
		return e.startCommand(ctx, s)
	case scenario.KindContainer:
		return e.containImage(ctx, s)
	default:
		return nil, &Error{Op: "start it", System: s.Name, Err: fmt.Errorf("kind %q; allowed are optimizer, nginx, varnish, haproxy, command, container, url and direct", s.Kind)}
	}
}

// errNoUpstream says that a system needs the upstream that the plan lacks.
var errNoUpstream = errors.New("the scenario has no upstream")

// direct is the upstream itself, at its TLS port if load is to come over h2.
func (e *Environment) direct(s *scenario.System) (*System, error) {
	address := e.ready.Arms[s.Name].URL
	if slices.ContainsFunc(e.plan.Load.Protocols, func(p scenario.ProtocolShare) bool { return p.Protocol == scenario.H2 }) {
		address = e.ready.Arms[s.Name].TLSURL
	}
	u, err := baseURL(address)
	if e.plan.Upstream == nil {
		err = errNoUpstream
	}
	if err != nil {
		return nil, &Error{Op: "send load straight to the upstream", System: s.Name, Err: err}
	}
	return &System{Name: s.Name, Kind: s.Kind, URL: u}, nil
}

// reach checks that a server of somebody else's is there. Any answer will do:
// how it treats a path that it may not know says nothing about it.
func (e *Environment) reach(ctx context.Context, s *scenario.System) (*System, error) {
	const op = "reach it"
	if s.URL == nil {
		return nil, &Error{Op: op, System: s.Name, Err: errors.New("no URL")}
	}
	err := e.waitFor(ctx, s.URL, nil, min(e.health, reachTime), func(int) bool { return true })
	if err != nil {
		return nil, &Error{Op: op, System: s.Name, Err: err, Hint: "Start the server at " + s.URL.Redacted() + " first, or correct the address."}
	}
	return &System{Name: s.Name, Kind: s.Kind, URL: s.URL}, nil
}

// startCommand runs a program of the user's choice.
func (e *Environment) startCommand(ctx context.Context, s *scenario.System) (*System, error) {
	const op = "start it"
	listen, err := freeAddress()
	if err != nil {
		return nil, &Error{Op: "find a free port", System: s.Name, Err: err}
	}
	admin := listen
	for admin == listen { // a port that was free a moment ago may be offered again
		if admin, err = freeAddress(); err != nil {
			return nil, &Error{Op: "find a free port", System: s.Name, Err: err}
		}
	}
	command, err := e.substitute(s, listen, admin)
	if err != nil {
		return nil, &Error{Op: op, System: s.Name, Err: err}
	}
	metrics, err := metricsURL(s.Metrics, listen, admin)
	if err != nil {
		return nil, &Error{Op: "find its metrics", System: s.Name, Err: err}
	}
	p, err := e.spawn(ctx, s.Name, command)
	if err != nil {
		return nil, err
	}
	system := e.system(s, p, &url.URL{Scheme: "http", Host: listen})
	system.Metrics = metrics
	return system, e.waitHealthy(ctx, system,
		"The command must listen on "+listen+", which stands in place of {listen}, and stay in the foreground.")
}

// metricsURL fills in the addresses; nil where the system has no metrics.
func metricsURL(text, listen, admin string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	return url.Parse(strings.NewReplacer("{listen}", listen, "{admin}", admin).Replace(text))
}

// substitute fills in the addresses.
func (e *Environment) substitute(s *scenario.System, listen, admin string) ([]string, error) {
	if len(s.Command) == 0 {
		return nil, errors.New("the command is empty")
	}
	all := strings.Join(s.Command, " ")
	if !strings.Contains(all, "{listen}") {
		return nil, fmt.Errorf("the command %q has no {listen}: nothing tells it where to listen", s.Command)
	}
	if e.plan.Upstream == nil && (strings.Contains(all, "{upstream}") || strings.Contains(all, "{upstream_tls}") || strings.Contains(all, "{ca}")) {
		return nil, fmt.Errorf("the command %q names the upstream, but %w", s.Command, errNoUpstream)
	}
	arm := e.ready.Arms[s.Name]
	values := strings.NewReplacer("{listen}", listen, "{upstream}", arm.URL, "{upstream_tls}", arm.TLSURL, "{ca}", e.ready.CAFile, "{admin}", admin)
	command := make([]string, len(s.Command))
	for i, arg := range s.Command {
		command[i] = values.Replace(arg)
	}
	return command, nil
}

// startOptimizer runs our reference proxy.
func (e *Environment) startOptimizer(ctx context.Context, s *scenario.System) (*System, error) {
	const op = "start it"
	if e.plan.Upstream == nil {
		return nil, &Error{Op: op, System: s.Name, Err: errNoUpstream}
	}
	if e.binary == "" {
		return nil, &Error{Op: op, System: s.Name, Err: errors.New("the optimizer's binary was not found"),
			Hint: "Name it with --optimizer PATH or PHASEGATE_OPTIMIZER, or put it beside phasegate or on PATH."}
	}
	if e.runsInside(s) {
		return e.containOptimizer(ctx, s)
	}
	certificate, err := e.optimizerCertificate(s)
	if err != nil {
		return nil, err
	}
	upstream, text, err := e.optimizerConfig(s, e.ready.Arms[s.Name], e.ready.CAFile, certificate)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(e.spawner.temp, s.Name+".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, &Error{Op: "write its configuration", System: s.Name, Err: err}
	}
	command := []string{e.binary, "--upstream", upstream, "--listen", "127.0.0.1:0", "--config", file}
	p, err := e.spawn(ctx, s.Name, command)
	if err != nil {
		return nil, err
	}
	const wait = "wait until it listens"
	line, err := p.firstLine(ctx, e.health)
	if err != nil {
		return nil, p.failed(s.Name, wait, err, "Its configuration was:\n"+strings.TrimSpace(string(text)))
	}
	listen, admin, err := parseListening(line)
	if err != nil {
		p.drained()
		return nil, p.failed(s.Name, wait, err, "Check that "+e.binary+" is the optimizer.")
	}
	system := e.system(s, p, listen)
	system.Admin, system.Metrics = admin, admin.JoinPath("metrics")
	system.Setup = declared(s)
	return system, e.waitHealthy(ctx, system, "")
}

// declared is how the optimizer was told to be.
func declared(s *scenario.System) Setup {
	stored := s.Cache.Bytes()
	return Setup{CacheBytes: &stored, AccessLog: &s.Cache.AccessLog}
}

// optimizerCertificate makes the certificate for its clients, who choose h2 in
// the handshake; "" where they come in clear text.
func (e *Environment) optimizerCertificate(s *scenario.System) (file string, err error) {
	if !e.speaks(scenario.H2) {
		return "", nil
	}
	if file, err = e.certificate(s.Name); err != nil {
		return "", &Error{Op: "write its configuration", System: s.Name, Err: err}
	}
	return file, nil
}

// optimizerConfig returns the address of its upstream and the text of its
// configuration, with the files as it finds them.
func (e *Environment) optimizerConfig(s *scenario.System, arm wire.ArmAddress, ca, certificate string) (upstream string, text []byte, err error) {
	upstream, config := arm.URL, maps.Clone(s.Config)
	if config == nil {
		config = map[string]any{}
	}
	if s.UpstreamTLS {
		upstream = arm.TLSURL
		fillIn(config, "upstream", "ca_file", ca)
	}
	if certificate != "" {
		fillIn(config, "tls", "cert_file", certificate)
		fillIn(config, "tls", "key_file", certificate)
	}
	text, err = yaml.Marshal(config)
	if err != nil {
		return "", nil, &Error{Op: "write its configuration", System: s.Name, Err: err}
	}
	return upstream, text, nil
}

// fillIn sets a key of a section, unless it is set, in a copy of the section.
func fillIn(config map[string]any, section, key, value string) {
	all, _ := config[section].(map[string]any)
	if all = maps.Clone(all); all == nil {
		all = make(map[string]any)
	}
	if _, ok := all[key]; !ok {
		all[key] = value
	}
	config[section] = all
}

// listening is the optimizer's first line of output.
var listening = regexp.MustCompile(`^optimizer listening on (\S+) admin (\S+)$`)

// parseListening reads the addresses from the optimizer's first line.
func parseListening(line string) (listen, admin *url.URL, err error) {
	m := listening.FindStringSubmatch(line)
	if m == nil {
		return nil, nil, fmt.Errorf("its first line of output was %.200q; expected is %q", line, "optimizer listening on URL admin URL")
	}
	if listen, err = baseURL(m[1]); err == nil {
		admin, err = baseURL(m[2])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("its first line of output was %.200q: %w", line, err)
	}
	return listen, admin, nil
}

func (e *Environment) system(s *scenario.System, p *process, u *url.URL) *System {
	return &System{
		Name: s.Name, Kind: s.Kind, URL: u, process: p,
		PID: int(p.pid.Load()), Supervisor: p.supervisor, Command: slices.Clone(p.command), LogFile: p.logFile,
	}
}

// waitHealthy waits until a system answers through to the upstream. hint is
// given if it doesn't answer at all.
func (e *Environment) waitHealthy(ctx context.Context, s *System, hint string) error {
	err := e.waitFor(ctx, s.URL, s.Died(), e.health, func(status int) bool {
		if status >= http.StatusInternalServerError || !s.Kind.Packaged() {
			return status < http.StatusInternalServerError
		}
		// Its port was free when its configuration was made. Until it takes it, another
		// server may: the answer counts if its upstream was asked for it.
		ledger, err := e.control.Ledger(ctx, s.Name, false)
		return err == nil && ledger.Probes > 0
	})
	if err == nil {
		return nil
	}
	p := s.process
	var refused *refusedError
	switch {
	case errors.Is(err, errDied):
		p.drained()
		err = fmt.Errorf("it ended by itself: %s", p.exited())
		if port := p.portHint(); port != "" {
			hint = port
		}
	case errors.As(err, &refused) && e.plan.Upstream != nil:
		hint = "It answers, but not with what its upstream says; its upstream is " + e.upstreamOf(s) + "."
	}
	return p.failed(s.Name, "wait until it answers", err, hint)
}

// upstreamOf is where a system finds its upstream.
func (e *Environment) upstreamOf(s *System) string {
	if s.Container == nil {
		return e.ready.Arms[s.Name].URL
	}
	at := e.inside[s.Name].URL
	if gateway, ok := e.hosts[upstreamName]; ok && s.Name == scenario.New {
		at += fmt.Sprintf(", by its /etc/hosts at %v, for a drill that worsens the network there", gateway)
	}
	return at
}

// portHint explains the most common reason to end at once, if it is that.
func (p *process) portHint() string {
	if p.log.contains("address already in use") || p.log.contains("port is already allocated") {
		return "Another process took the port between our choosing it and the start. Run again."
	}
	return ""
}

// firstLine waits for the first line of standard output.
func (p *process) firstLine(ctx context.Context, timeout time.Duration) (string, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case line := <-p.first:
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-timer.C:
		return "", fmt.Errorf("no line on its standard output within %v", timeout)
	case <-p.died:
	}
	// What it said before it died is told by the log.
	p.drained()
	return "", fmt.Errorf("it ended by itself: %s", p.exited())
}
