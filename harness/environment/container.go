package environment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"phasegate/harness/environment/container"
	"phasegate/harness/scenario"
)

// containArg is the argument by which this program becomes a container's keeper.
const containArg = "contain"

// How long the engine may take for its part.
const (
	engineTime    = 15 * time.Second // to start or to remove a container
	publishedTime = 3 * time.Second  // in which only the published port is tried
	buildTime     = 5 * time.Minute  // to build or fetch an image
)

// Where programs listen in a container, and what is put there for them.
const (
	insidePort     = 8080 // of a system, unless the scenario says otherwise
	insideAdmin    = 8081
	insideControl  = 9000 // of the mock upstream; its arms' follow
	insideConfig   = "/phasegate-config"
	insideCA       = "/phasegate-ca.pem"
	maxCertificate = 1 << 20 // bytes

	insideCertificate = "/phasegate-certificate.pem" // for clients, with its key
)

// Keep is the program of the hidden command `phasegate contain FILE`, which
// keeps one container; see [container.Keep].
func Keep(file string) int { return container.Keep(file) }

// EngineVersion asks for a container engine. The error, an *[Error], says what
// to install if there is none.
func EngineVersion(ctx context.Context) (string, error) {
	engine, err := connect(ctx)
	if err != nil {
		return "", err
	}
	return engine.Version(), engine.Close()
}

// IsStatic reports whether a binary can be all that is in a container.
func IsStatic(binary string) bool { return container.IsStatic(binary) }

func connect(ctx context.Context) (*container.Engine, error) {
	engine, err := container.Connect(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, &Error{Op: "start containers", Err: err,
			Hint: "Install a container engine (Debian: apt-get install docker.io) and see that `docker version` shows its server, or say --upstream process."}
	}
	return engine, err
}

// Container is a system's container.
type Container struct {
	Name   string
	ID     string // the engine's
	Image  string
	PID    int // of its first process as the engine sees it; 0 where it doesn't say
	Limits scenario.Limits
	// Published is true where load goes to the port published on loopback, false
	// where it goes to the container's own address.
	Published bool

	engine *container.Engine
	run    string
	member string
	at     netip.Addr // its own address
	dialed bool       // a proxy of ours goes to its own address, whatever load does
	ended  string     // file for how it ended
	oom    atomic.Bool
}

// Usage asks the engine for what the container holds and has used since its
// start, and whether the kernel has killed a process of it for want of memory: of one
// that goes on, not every engine knows that.
func (c *Container) Usage(ctx context.Context) (container.Usage, error) {
	u, err := c.engine.Usage(ctx, c.Name)
	if state, inspected := c.engine.Inspect(ctx, c.Name); inspected == nil {
		u.OOM = state.OOM
	}
	return u, err
}

// OOM reports whether the container ended by itself after the kernel had killed
// a process of it for want of memory.
func (c *Container) OOM() bool { return c.oom.Load() }

// Detach takes it off the network, Attach puts it back.
func (c *Container) Detach(ctx context.Context) error { return c.engine.Detach(ctx, c.run, c.member) }

// Attach undoes Detach. A container that was reached by its own address, and came
// back with another one, is an error: what goes to the old one would be blamed on a
// system.
func (c *Container) Attach(ctx context.Context) error {
	if err := c.engine.Attach(ctx, c.run, c.member); err != nil || c.Published && !c.dialed {
		return err
	}
	state, err := c.engine.Inspect(ctx, c.Name)
	if err == nil && state.Address != c.at {
		err = fmt.Errorf("container %s came back to its network as %v, and is reached by the address that it had, which was %v", c.Name, state.Address, c.at)
	}
	return err
}

// Pause stops all of its processes where they stand, Resume lets them go on.
func (c *Container) Pause(ctx context.Context) error { return c.engine.Pause(ctx, c.run, c.member) }

// Resume undoes Pause.
func (c *Container) Resume(ctx context.Context) error { return c.engine.Resume(ctx, c.run, c.member) }

// startEngine connects to the engine, removes what runs left there that ended
// without a chance to, and makes this run's network.
func (e *Environment) startEngine(ctx context.Context) error {
	engine, err := connect(ctx)
	if err != nil {
		return err
	}
	e.engine = engine
	e.swept = engine.Sweep(ctx)
	if err := engine.CreateNetwork(ctx, e.run); err != nil {
		return &Error{Op: "start containers", Err: err}
	}
	return nil
}

// stopEngine removes what is left of the run in the engine.
func (e *Environment) stopEngine(ctx context.Context) error {
	if e.engine == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineTime)
	defer cancel()
	return errors.Join(e.engine.Remove(ctx, e.run), e.engine.Close())
}

// Swept says what couldn't be removed of what earlier runs left in the container
// engine; nil if all was, or nothing was there. The next run tries again.
func (e *Environment) Swept() error { return e.swept }

// image returns the image around a static binary.
func (e *Environment) image(ctx context.Context, system, name, binary string) (string, error) {
	const op = "build its image"
	if !container.IsStatic(binary) {
		return "", &Error{Op: op, System: system, Err: fmt.Errorf("%s is not a static Linux binary, and nothing else is in the container", binary),
			Hint: "Build it with CGO_ENABLED=0 (make build does), or say --upstream process."}
	}
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	image, err := e.engine.Build(ctx, name, binary)
	if err != nil {
		return "", &Error{Op: op, System: system, Err: err}
	}
	return image, nil
}

// contained is a container that runs, and where its ports are found.
type contained struct {
	*process
	*Container
	ports []container.Port
}

// startTries is how often a container is started when somebody else has taken a
// port meanwhile that was free.
const startTries = 3

// contain starts a container under a keeper that Stop will stop, and waits
// until the engine says that it runs. The ports inside are published at free
// ones, which stay when it is detached and attached again; those of s.Ports
// where these say.
func (e *Environment) contain(ctx context.Context, member string, s container.Spec, inside ...uint16) (c *contained, err error) {
	fixed := s.Ports
	for range startTries {
		published, busy := freePorts(len(inside))
		if busy != nil {
			return nil, &Error{Op: "find free ports", System: member, Err: busy}
		}
		s.Ports = slices.Clone(fixed)
		for i, port := range inside {
			s.Ports = append(s.Ports, container.Port{Inside: port, Published: published[i]})
		}
		var taken bool
		if c, taken, err = e.containOnce(ctx, member, s); err == nil || !taken {
			return c, err
		}
	}
	return nil, err
}

// freePorts returns so many different ports of the loopback interface.
func freePorts(n int) ([]uint16, error) {
	ports := make([]uint16, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // when all are known: one that was closed may come again
		ports[i] = uint16(l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// containOnce tries to start it; taken reports whether a port was in use.
func (e *Environment) containOnce(ctx context.Context, member string, s container.Spec) (_ *contained, taken bool, _ error) {
	const op = "start its container"
	s.Run, s.Member, s.Labels, s.Grace = e.run, member, container.Labels(e.run), e.spawner.grace
	s.Ended = filepath.Join(e.spawner.temp, member+".ended.json")
	text, err := json.Marshal(s)
	if err != nil {
		return nil, false, &Error{Op: op, System: member, Err: err}
	}
	file := filepath.Join(e.spawner.temp, member+".container.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, false, &Error{Op: op, System: member, Err: err}
	}
	keeper := e.spawner
	keeper.grace += engineTime // it waits for the container's own
	made := &Container{
		Name: container.Name(e.run, member), Image: s.Image, Limits: scenario.Limits{Memory: s.Memory, CPUs: s.CPUs},
		engine: e.engine, run: e.run, member: member, ended: s.Ended,
	}
	keeper.explain = made.explain
	p, err := keeper.spawn(ctx, member, append(slices.Clone(e.spawner.self), containArg, file))
	if err != nil {
		return nil, false, err
	}
	e.mu.Lock()
	e.processes = append(e.processes, running{member, p})
	e.mu.Unlock()
	p.command = append([]string{s.Image}, s.Command...)
	c := &contained{process: p, ports: s.Ports, Container: made}
	if err := e.awaitRunning(ctx, c); err != nil {
		if errors.Is(err, errDied) {
			p.drained()
			err = fmt.Errorf("it ended by itself: %s", p.exited())
		}
		return nil, p.portHint() != "", p.failed(member, op, err, p.portHint())
	}
	return c, false, nil
}

// awaitRunning waits until the container runs.
func (e *Environment) awaitRunning(ctx context.Context, c *contained) error {
	bounded, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	for {
		state, err := e.engine.Inspect(bounded, c.Name)
		if err == nil && state.Running {
			c.ID, c.PID, c.at = state.ID, state.PID, state.Address
			return nil
		}
		if err == nil {
			err = errors.New("made and not running")
		}
		select {
		case <-c.died:
			return errDied
		case <-bounded.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("it didn't run within %v: %w", engineTime, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// explain adds to how its keeper ended what the engine knew of the end.
func (c *Container) explain(how string) string {
	end, ok := container.ReadEnd(c.ended)
	if ok && end.Error != "" {
		return how + ", after the container engine failed: " + end.Error
	}
	if !ok || !end.OOM {
		return how
	}
	c.oom.Store(true)
	limit := "without a limit of its own"
	if c.Limits.Memory > 0 {
		limit = fmt.Sprintf("its limit is %.4g MB", float64(c.Limits.Memory)/1e6)
	}
	return fmt.Sprintf("out of memory, %s, and killed by the kernel for that (%s)", limit, how)
}

// address is where a port of the container is found from here.
func (c *contained) address(inside uint16) string {
	if !c.Published {
		return netip.AddrPortFrom(c.at, inside).String()
	}
	i := slices.IndexFunc(c.ports, func(p container.Port) bool { return p.Inside == inside })
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), c.ports[i].Published).String()
}

// locate finds out by trying which address answers from here, to a request for
// a path at one of its ports: the published one on loopback, or else the
// container's own. Where the engine is on another machine, or publishes
// nothing, only one of them may.
func (e *Environment) locate(ctx context.Context, p *prober, c *contained, inside uint16, path string) error {
	bounded, cancel := context.WithTimeout(ctx, e.health)
	defer cancel()
	begun := time.Now()
	for {
		var errs []error
		for _, published := range []bool{true, false} {
			if !published && (time.Since(begun) < publishedTime || !c.at.IsValid()) {
				continue
			}
			c.Published = published
			if _, err := p.probe(bounded, "http://"+c.address(inside)+path); err == nil {
				return nil
			} else {
				errs = append(errs, fmt.Errorf("%s: %w", c.address(inside), err))
			}
		}
		select {
		case <-c.died:
			c.drained()
			return fmt.Errorf("it ended by itself: %s", c.exited())
		case <-bounded.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("no address of the container answers within %v: %w", e.health, errors.Join(errs...))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
