package environment

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment/container"
	"phasegate/harness/scenario"
)

// containUpstream starts the mock upstream in a container.
func (e *Environment) containUpstream(ctx context.Context) error {
	image, err := e.image(ctx, upstreamName, upstreamName, e.static)
	if err != nil {
		return err
	}
	config := upstreamConfig(e.plan, e.run, "/")
	config.Control = everywhere(insideControl)
	config.CAFile = insideCA
	spec := container.Spec{Image: image, Command: []string{upstreamName, "--config", insideConfig}}
	inside := []uint16{insideControl}
	e.inside = make(map[string]wire.ArmAddress)
	for i := range config.Arms {
		arm := &config.Arms[i]
		clear, secure := uint16(insideControl+1+2*i), uint16(insideControl+2+2*i)
		if fixed := e.plan.Upstream.Listen; fixed != "" && arm.Listen == fixed {
			at, err := netip.ParseAddrPort(fixed)
			if err != nil {
				return &Error{Op: "publish " + fixed, System: upstreamName, Err: err, Hint: "Write upstream.listen as an address: 127.0.0.1:9000."}
			}
			spec.Ports = append(spec.Ports, container.Port{Inside: clear, Published: at.Port()})
		} else {
			inside = append(inside, clear)
		}
		arm.Listen, arm.ListenTLS = everywhere(clear), everywhere(secure)
		e.inside[arm.Name] = wire.ArmAddress{
			URL:    fmt.Sprintf("http://%s:%d", upstreamName, clear),
			TLSURL: fmt.Sprintf("https://%s:%d", upstreamName, secure),
		}
		inside = append(inside, secure)
	}
	text, err := json.Marshal(config)
	if err != nil {
		return &Error{Op: "write its configuration", System: upstreamName, Err: err}
	}
	spec.Files = map[string][]byte{insideConfig: text}
	c, err := e.contain(ctx, upstreamName, spec, inside...)
	if err != nil {
		return err
	}
	const op = "wait until it listens"
	line, err := c.firstLine(ctx, e.health)
	if err == nil {
		_, err = parseReady(line, e.plan)
	}
	if err == nil {
		plain := &prober{&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}}
		err = e.locate(ctx, plain, c, insideControl, wire.HealthPath)
	}
	if err == nil {
		err = e.takeAuthority(ctx, c)
	}
	if err != nil {
		return c.failed(upstreamName, op, err, c.portHint())
	}
	e.ready.Control = c.address(insideControl)
	e.ready.Arms = make(map[string]wire.ArmAddress)
	for i, arm := range config.Arms {
		e.ready.Arms[arm.Name] = wire.ArmAddress{
			URL:    "http://" + c.address(uint16(insideControl+1+2*i)),
			TLSURL: "https://" + c.address(uint16(insideControl+2+2*i)),
		}
	}
	e.control = wire.Dial(e.ready.Control)
	e.upstream = &System{Name: upstreamName, process: c.process, Container: c.Container, Command: c.command, LogFile: c.logFile}
	return nil
}

func everywhere(port uint16) string { return fmt.Sprintf("0.0.0.0:%d", port) }

// takeAuthority copies the upstream's certificate authority out of its container.
func (e *Environment) takeAuthority(ctx context.Context, c *contained) error {
	pem, err := e.engine.ReadFile(ctx, c.Name, insideCA, maxCertificate)
	if err != nil {
		return err
	}
	e.ready.CAFile = filepath.Join(e.spawner.temp, "ca.pem")
	return os.WriteFile(e.ready.CAFile, pem, 0o600)
}

// runsInside reports whether a system runs in a container.
func (e *Environment) runsInside(s *scenario.System) bool {
	return e.contained && (s.Kind == scenario.KindOptimizer || s.Kind == scenario.KindContainer)
}

// containOptimizer runs our reference proxy in a container.
func (e *Environment) containOptimizer(ctx context.Context, s *scenario.System) (*System, error) {
	spec := container.Spec{Files: map[string][]byte{}}
	certificate, err := e.optimizerCertificate(s)
	if err != nil {
		return nil, err
	}
	if certificate != "" {
		pem, err := os.ReadFile(certificate)
		if err != nil {
			return nil, &Error{Op: "write its configuration", System: s.Name, Err: err}
		}
		certificate, spec.Files[insideCertificate] = insideCertificate, pem
	}
	upstream, text, err := e.optimizerConfig(s, e.inside[s.Name], insideCA, certificate)
	if err != nil {
		return nil, err
	}
	if spec.Image, err = e.image(ctx, s.Name, "optimizer", e.binary); err != nil {
		return nil, err
	}
	spec.Command = []string{"--upstream", upstream, "--listen", everywhere(insidePort), "--admin", everywhere(insideAdmin), "--config", insideConfig}
	spec.Files[insideConfig] = text
	c, err := e.containSystem(ctx, s, spec, insidePort)
	if err != nil {
		return nil, err
	}
	line, err := c.firstLine(ctx, e.health)
	if err != nil {
		return nil, c.failed(s.Name, "wait until it listens", err, "Its configuration was:\n"+strings.TrimSpace(string(text)))
	}
	listen, _, err := parseListening(line)
	if err != nil {
		c.drained()
		return nil, c.failed(s.Name, "wait until it listens", err, "Check that "+e.binary+" is the optimizer.")
	}
	system, err := e.reachContained(ctx, s, c, listen.Scheme, insidePort)
	if err == nil {
		system.Admin = &url.URL{Scheme: "http", Host: c.address(insideAdmin)}
		system.Metrics = system.Admin.JoinPath("metrics")
		system.Setup = declared(s)
	}
	return system, err
}

// containImage runs an image of the user's choice.
func (e *Environment) containImage(ctx context.Context, s *scenario.System) (*System, error) {
	port := uint16(insidePort)
	if s.Port != 0 {
		port = uint16(s.Port)
	}
	bounded, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	image, err := s.Image, error(nil)
	if image != "" {
		err = e.engine.Ensure(bounded, image)
	} else {
		image, err = e.engine.BuildFile(bounded, "system", s.Dockerfile)
	}
	if err != nil {
		return nil, &Error{Op: "get its image", System: s.Name, Err: err}
	}
	arm := e.inside[s.Name]
	values := strings.NewReplacer("{listen}", everywhere(port), "{admin}", everywhere(insideAdmin),
		"{upstream}", arm.URL, "{upstream_tls}", arm.TLSURL, "{ca}", insideCA)
	spec := container.Spec{Image: image, Env: map[string]string{}}
	for _, arg := range s.Command {
		spec.Command = append(spec.Command, values.Replace(arg))
	}
	for name, value := range s.Env {
		spec.Env[name] = values.Replace(value)
	}
	c, err := e.containSystem(ctx, s, spec, port)
	if err != nil {
		return nil, err
	}
	system, err := e.reachContained(ctx, s, c, "http", port)
	if err == nil {
		system.Metrics, err = metricsURL(s.Metrics, c.address(port), c.address(insideAdmin))
	}
	return system, err
}

// containSystem starts a system's container within the scenario's limits.
func (e *Environment) containSystem(ctx context.Context, s *scenario.System, spec container.Spec, port uint16) (*contained, error) {
	limits := e.plan.Limits(s.Name)
	spec.Memory, spec.CPUs = limits.Memory, limits.CPUs
	pem, err := os.ReadFile(e.ready.CAFile)
	if err != nil {
		return nil, &Error{Op: "read the upstream's certificate authority", System: s.Name, Err: err}
	}
	if s.Name == scenario.New {
		spec.Hosts = e.hosts
	}
	files := map[string][]byte{insideCA: pem}
	maps.Copy(files, spec.Files)
	spec.Files = files
	return e.contain(ctx, s.Name, spec, port, insideAdmin)
}

// reachContained finds a contained system's address and waits until it answers
// through to the upstream.
func (e *Environment) reachContained(ctx context.Context, s *scenario.System, c *contained, scheme string, port uint16) (*System, error) {
	hint := fmt.Sprintf("It must listen on port %d of all interfaces (systems.%s.port names another one), and stay in the foreground.", port, s.Name)
	p, err := e.prober()
	if err == nil {
		err = e.locate(ctx, p, c, port, wire.ProbePath)
	}
	if err != nil {
		return nil, c.failed(s.Name, "wait until it answers", err, hint)
	}
	system := e.system(s, c.process, &url.URL{Scheme: scheme, Host: c.address(port)})
	system.PID, system.Supervisor, system.Container = 0, 0, c.Container
	return system, e.waitHealthy(ctx, system, hint)
}
