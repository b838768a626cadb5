package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// Spec says what a keeper keeps.
type Spec struct {
	Run, Member string
	Labels      map[string]string // of whoever owns it
	Image       string
	Command     []string          // after the entry point; nil leaves the image's own
	Env         map[string]string // in addition to the image's own
	Files       map[string][]byte // by absolute path in the container
	Ports       []Port
	Hosts       map[string]netip.Addr // what names mean in the container, whatever the network's DNS says
	Memory      int64                 // bytes; 0 for no limit
	CPUs        float64               // 0 for no limit
	Grace       time.Duration         // between asking it to end and killing it
	Ended       string                // file for the [End]
}

// Port is a port of the container and where it is published on this machine's
// loopback interface.
type Port struct{ Inside, Published uint16 }

// End is how a container ended by itself.
type End struct {
	Code  int
	OOM   bool   // the kernel killed a process of it for want of memory
	Error string // the engine's, if it couldn't be started or waited for
}

// Labels are those by which what belongs to a run of this process is found.
func Labels(run string) map[string]string { return labels(run) }

// How long the engine may take for its own part.
const (
	removeTime = 10 * time.Second
	oomTime    = 500 * time.Millisecond // by which the news of a kill may come after the end
)

// Keep is the program of the hidden command
//
//	phasegate contain FILE
//
// FILE is a [Spec] in JSON. Keep starts the container, hands on both its outputs,
// and ends with it and with its exit code; SIGTERM, SIGINT or SIGHUP ends the
// container. When it returns the container is removed, and with the last one
// after a signal the run's network. 125 is the exit code if the container
// couldn't be started, as the docker command has it.
func Keep(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	// A harness that is gone reads nothing; that must not end us before our work
	// is done.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	const failed = 125
	var s Spec
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "phasegate contain: read %s: %v\n", file, err)
		return failed
	}
	end, err := s.keep(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "phasegate contain: %v\n", err)
		end.Code, end.Error = failed, err.Error()
	}
	if text, err := json.Marshal(end); err == nil && ctx.Err() == nil {
		if err := os.WriteFile(s.Ended, text, 0o600); err != nil {
			fmt.Fprintf(os.Stderr, "phasegate contain: %v\n", err)
		}
	}
	return end.Code
}

func (s Spec) keep(ctx context.Context) (end End, err error) {
	engine, err := Connect(ctx)
	if err != nil {
		return end, err
	}
	defer engine.Close()
	name := Name(s.Run, s.Member)
	defer func() {
		// The engine may go on with what was asked of it, so whatever came of
		// the start, this is needed.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer cancel()
		err = errors.Join(err, engine.removeContainer(last, name))
		if ctx.Err() != nil {
			_ = engine.removeNetwork(last, Name(s.Run, "")) // fails for all but the last one
		}
	}()
	created, err := s.create(ctx)
	if err != nil {
		return end, err
	}
	if err := engine.limits(ctx, name, s); err != nil {
		return end, err
	}
	// Attached before the start, so that nothing is lost, and nothing of what
	// it says is written to the engine's disk.
	output, err := engine.api.ContainerAttach(ctx, name, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return end, fmt.Errorf("attach to container %s: %w", name, err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		stdcopy.StdCopy(os.Stdout, os.Stderr, output.Reader) // ends with the container
	}()
	defer func() {
		select {
		case <-copied:
		case <-time.After(removeTime):
		}
		output.Close()
	}()
	if err := created.Start(ctx); err != nil {
		output.Close()
		return end, fmt.Errorf("start container %s: %w", name, err)
	}
	ended := engine.api.ContainerWait(context.WithoutCancel(ctx), name, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case <-ctx.Done():
		return end, engine.stop(context.WithoutCancel(ctx), name, s.Grace)
	case err := <-ended.Error:
		return end, fmt.Errorf("wait for container %s: %w", name, err)
	case how := <-ended.Result:
		end.Code = int(how.StatusCode)
		end.OOM = engine.killed(ctx, name, end.Code)
		return end, nil
	}
}

func (s Spec) create(ctx context.Context) (testcontainers.Container, error) {
	quiet()
	of := Name(s.Run, "")
	request := testcontainers.ContainerRequest{
		Name: Name(s.Run, s.Member), Image: s.Image, Cmd: s.Command, Env: s.Env, Labels: s.Labels,
		Networks: []string{of}, NetworkAliases: map[string][]string{of: {s.Member}},
		ConfigModifier: func(c *container.Config) { c.Hostname = s.Member },
		HostConfigModifier: func(h *container.HostConfig) {
			// Without swap: a limit that can be evaded by it is none.
			h.Memory, h.MemorySwap, h.NanoCPUs = s.Memory, s.Memory, int64(s.CPUs*1e9)
			h.LogConfig.Type = "none"
			for name, address := range s.Hosts {
				h.ExtraHosts = append(h.ExtraHosts, name+":"+address.String())
			}
			h.PortBindings = network.PortMap{}
			for _, p := range s.Ports {
				inside, _ := network.PortFrom(p.Inside, network.TCP)
				h.PortBindings[inside] = []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: fmt.Sprint(p.Published)}}
			}
		},
	}
	for _, p := range s.Ports {
		request.ExposedPorts = append(request.ExposedPorts, fmt.Sprintf("%d/tcp", p.Inside))
	}
	for path, content := range s.Files {
		request.Files = append(request.Files, testcontainers.ContainerFile{Reader: bytes.NewReader(content), ContainerFilePath: path, FileMode: 0o644})
	}
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{ContainerRequest: request})
	if err != nil {
		return nil, fmt.Errorf("make container %s: %w", request.Name, err)
	}
	return c, nil
}

// stop ends a container, whose processes may be paused.
func (e *Engine) stop(ctx context.Context, name string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+removeTime)
	defer cancel()
	_, _ = e.api.ContainerUnpause(ctx, name, client.ContainerUnpauseOptions{}) // it seldom is
	seconds := int(grace.Seconds())
	_, err := e.api.ContainerStop(ctx, name, client.ContainerStopOptions{Timeout: &seconds})
	if err != nil && !IsNotFound(err) {
		return fmt.Errorf("stop container %s: %w", name, err)
	}
	return nil
}

// killed reports whether the kernel killed a process of a container that ended
// for want of memory. Of one that was killed the news may come a little later
// than its end.
func (e *Engine) killed(ctx context.Context, name string, code int) bool {
	deadline := time.Now().Add(oomTime)
	for {
		result, err := e.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		switch {
		case err != nil || result.Container.State == nil:
			return false
		case result.Container.State.OOMKilled:
			return true
		case code != 128+int(syscall.SIGKILL) || time.Now().After(deadline):
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// limits makes sure that the engine has taken over the limits: where the kernel can't
// enforce one, it leaves it out with a warning.
func (e *Engine) limits(ctx context.Context, name string, s Spec) error {
	result, err := e.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container %s: %w", name, err)
	}
	h := result.Container.HostConfig
	switch {
	case h == nil:
		return fmt.Errorf("inspect container %s: the engine says nothing of its limits", name)
	case h.Memory != s.Memory, s.Memory > 0 && h.MemorySwap != s.Memory:
		return fmt.Errorf("limit container %s: the engine made %d bytes of memory, %d with swap, of the limit of %d; the kernel needs the control groups' accounting of both", name, h.Memory, h.MemorySwap, s.Memory)
	case h.NanoCPUs != int64(s.CPUs*1e9):
		return fmt.Errorf("limit container %s: the engine made %g CPUs of the limit of %g", name, float64(h.NanoCPUs)/1e9, s.CPUs)
	}
	return nil
}

// ReadEnd reads what a keeper wrote; false if it wrote nothing.
func ReadEnd(file string) (end End, ok bool) {
	text, err := os.ReadFile(file)
	return end, err == nil && json.Unmarshal(text, &end) == nil
}
