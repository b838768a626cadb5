package environment

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment/container"
	"phasegate/harness/environment/network"
	"phasegate/harness/scenario"
)

// The defaults of Config.
const (
	defaultHealth = 15 * time.Second
	defaultGrace  = 5 * time.Second
)

// reachTime bounds the wait for a server that isn't ours to start.
const reachTime = 5 * time.Second

// Config says what to start. Plan and LogDir are required.
type Config struct {
	Plan   *scenario.Plan
	LogDir string // folder of the logs, made if missing: NAME.log for each process
	Run    string // by which the mock upstream's answers name this run

	// Self is the argument vector that starts this program again; with
	// "supervise" or "upstream" after it, it must call [Supervise] or be the
	// mock upstream. Default: this executable.
	Self      []string
	Optimizer string // path of the optimizer's binary; required by systems of that kind

	// Contain starts the mock upstream and systems of kind optimizer in
	// containers; a system of kind container needs it. Run is required then, as
	// are static binaries: Optimizer, and Static, which is this program.
	Contain bool
	Static  string

	// CPU is the one processor that the systems run on, which a container can't be
	// told; nil for any. The mock upstream runs on all.
	CPU *int

	Health time.Duration // how long a process may take to answer; default 15 s
	Grace  time.Duration // how long a process may take to end after SIGTERM; default 5 s
}

// Validate joins all faults.
func (c Config) Validate() error {
	var errs []error
	if c.Plan == nil {
		errs = append(errs, errors.New("no plan"))
	} else if len(c.Plan.Systems) == 0 {
		errs = append(errs, errors.New("the plan has no systems"))
	}
	if c.LogDir == "" {
		errs = append(errs, errors.New("no folder for logs"))
	}
	if c.Plan != nil && c.Plan.Contained() && !c.Contain {
		errs = append(errs, errors.New("a system of kind container, and no containers"))
	}
	if c.Contain && (c.Run == "" || c.Static == "") {
		errs = append(errs, errors.New("containers without a name for the run and a static binary of this program"))
	}
	if c.Contain && c.CPU != nil {
		errs = append(errs, fmt.Errorf("processor %d for systems in containers; allowed: none", *c.CPU))
	}
	if c.Health < 0 || c.Grace < 0 {
		errs = append(errs, fmt.Errorf("times to answer %v and to end %v; negative ones are not allowed", c.Health, c.Grace))
	}
	return errors.Join(errs...)
}

// Environment is everything that runs for a plan.
type Environment struct {
	plan     *scenario.Plan
	run      string
	spawner  spawner
	cpu      *int // the systems'
	health   time.Duration
	binary   string // the optimizer's
	systems  map[string]*System
	upstream *System
	ready    wire.Ready // of the upstream
	control  *wire.Control

	networks     map[string][]*network.Proxy // by leg of the new system
	unproxied    error                       // why no proxy stands between containers; nil if one does, or wasn't asked for
	certificates []byte                      // PEM, of systems that speak TLS to clients

	contained bool   // upstream and optimizers run in containers
	static    string // binary of this program for them
	swept     error
	engine    *container.Engine          // nil without containers
	inside    map[string]wire.ArmAddress // the upstream's arms as containers find them
	hosts     map[string]netip.Addr      // what names mean to the new system in its container

	mu        sync.Mutex
	stopped   bool
	stopErr   error
	processes []running // in the order of their start
}

type running struct {
	name string
	*process
}

// Start starts the mock upstream and then the plan's systems in their order,
// and returns once each of them answers. If one doesn't, everything that was
// started is stopped again, and the error is an [*Error]; it is ctx's if ctx
// was cancelled.
func Start(ctx context.Context, c Config) (*Environment, error) {
	if err := c.Validate(); err != nil {
		return nil, &Error{Op: "set up the environment", Err: err}
	}
	e := &Environment{
		plan:      c.Plan,
		run:       c.Run,
		health:    c.Health,
		binary:    c.Optimizer,
		spawner:   spawner{self: c.Self, logDir: c.LogDir, grace: c.Grace},
		cpu:       c.CPU,
		contained: c.Contain,
		static:    c.Static,
		systems:   make(map[string]*System),
		networks:  make(map[string][]*network.Proxy),
	}
	if e.health == 0 {
		e.health = defaultHealth
	}
	if e.spawner.grace == 0 {
		e.spawner.grace = defaultGrace
	}
	if err := e.start(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("start the environment: %w", ctx.Err())
		}
		patience := e.spawner.grace + stopTime
		if e.contained {
			patience += engineTime
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if stopErr := e.Stop(stop); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		return nil, err
	}
	return e, nil
}

func (e *Environment) start(ctx context.Context) error {
	if err := e.prepare(); err != nil {
		return err
	}
	if e.contained {
		if err := e.startEngine(ctx); err != nil {
			return err
		}
	}
	if e.plan.Upstream != nil {
		if err := e.startUpstream(ctx); err != nil {
			return err
		}
	}
	client, upstream := e.plan.Legs()
	if upstream && e.noProxy(scenario.UpstreamLeg) == nil {
		if err := e.proxyUpstream(ctx); err != nil {
			return err
		}
	}
	for i := range e.plan.Systems {
		system, err := e.startSystem(ctx, &e.plan.Systems[i])
		if err != nil {
			return err
		}
		if client && system.Name == scenario.New && e.noProxy(scenario.ClientLeg) == nil {
			if system.URL, err = e.through(scenario.ClientLeg, system.URL.String()); err != nil {
				return err
			}
		}
		e.systems[system.Name] = system
	}
	return nil
}

// prepare makes the folders, and finds this program.
func (e *Environment) prepare() error {
	if err := os.MkdirAll(e.spawner.logDir, 0o777); err != nil {
		return &Error{Op: "make the folder for logs", Err: err, Hint: "Choose an output folder that can be written."}
	}
	if len(e.spawner.self) == 0 {
		self, err := os.Executable()
		if err != nil {
			return &Error{Op: "find this program's own file", Err: err}
		}
		e.spawner.self = []string{self}
	}
	temp, err := tempDir()
	if err != nil {
		return &Error{Op: "make a private folder", Err: err, Hint: "TMPDIR must name a folder that can be written."}
	}
	e.spawner.temp = temp
	return nil
}

// tempDir makes a private folder whose path is short enough for sockets in it:
// the kernel takes 107 bytes.
func tempDir() (string, error) {
	parent, err := filepath.Abs(os.TempDir())
	if err != nil {
		return "", err
	}
	if len(parent)+len("/"+tempPrefix+"4294967295/"+controlSocket) > 107 {
		parent = "/tmp"
	}
	return os.MkdirTemp(parent, tempPrefix)
}

// spawn starts a process that Stop will stop.
func (e *Environment) spawn(ctx context.Context, name string, command []string) (*process, error) {
	s := e.spawner
	if name != upstreamName {
		s.cpu = e.cpu
	}
	p, err := s.spawn(ctx, name, command)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.processes = append(e.processes, running{name, p})
	return p, nil
}

// Systems returns the systems by name.
func (e *Environment) Systems() map[string]*System { return maps.Clone(e.systems) }

// Upstream returns the mock upstream as a process; nil if the plan has none.
// If it dies, that is no fault of any system.
func (e *Environment) Upstream() *System { return e.upstream }

// Control returns the mock upstream's control client; nil if the plan has no
// upstream.
func (e *Environment) Control() *wire.Control { return e.control }

// Authorities are those whose certificates a client of the systems may trust:
// the host's, and the mock upstream's own.
func (e *Environment) Authorities() (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a host without any
	}
	if e.ready.CAFile != "" {
		own, err := os.ReadFile(e.ready.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the upstream's certificate authority: %w", err)
		}
		roots.AppendCertsFromPEM(own)
	}
	roots.AppendCertsFromPEM(e.certificates)
	return roots, nil
}

// Stop stops every process and removes the private folder: the systems first,
// all at once, then the upstream. Each gets SIGTERM, and what is left of it
// SIGKILL after the grace time, or as soon as ctx ends. A process that had to
// be killed is no error; the errors say what could not be stopped, removed or
// logged. Later calls return the first one's result.
func (e *Environment) Stop(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return e.stopErr
	}
	e.stopped = true

	errs := make([]error, len(e.processes)+2)
	stop := func(i int) {
		if err := e.processes[i].stop(ctx); err != nil {
			errs[i] = fmt.Errorf("stop %s: %w", e.processes[i].name, err)
		}
	}
	var systems sync.WaitGroup
	for i, p := range e.processes {
		if p.name != upstreamName {
			systems.Go(func() { stop(i) })
		}
	}
	systems.Wait()
	e.closeNetworks(scenario.ClientLeg)
	e.closeNetworks(scenario.UpstreamLeg)
	if e.control != nil {
		e.control.Close()
	}
	for i, p := range e.processes {
		if p.name == upstreamName {
			stop(i)
		}
	}
	if err := e.stopEngine(ctx); err != nil {
		errs[len(e.processes)+1] = err
	}
	if e.spawner.temp != "" {
		if err := os.RemoveAll(e.spawner.temp); err != nil {
			errs[len(e.processes)] = fmt.Errorf("remove the private folder: %w", err)
		}
	}
	e.stopErr = errors.Join(errs...)
	return e.stopErr
}
