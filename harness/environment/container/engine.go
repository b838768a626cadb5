package container

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// connectTime bounds the wait for an engine's first answer.
const connectTime = 10 * time.Second

// Engine is a container engine that answers. Its methods may be called at once
// from several goroutines.
type Engine struct {
	api     *testcontainers.DockerClient
	version string
}

// quiet keeps the library from writing to the terminal, and from starting a
// cleaner of its own: that is another image, which may not be had, and what we
// leave we remove by our own labels.
var quiet = sync.OnceFunc(func() {
	log.SetDefault(log.NewNoopLogger())
	os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
})

// Connect finds the engine by DOCKER_HOST, the context of the docker command,
// or the usual sockets. The error says that none answers.
func Connect(ctx context.Context) (e *Engine, err error) {
	quiet()
	defer func() {
		if r := recover(); r != nil { // the library's way to say that it finds no socket
			e, err = nil, fmt.Errorf("find a container engine: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if err := named(ctx); err != nil {
		return nil, err
	}
	api, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, fmt.Errorf("find a container engine: %w", err)
	}
	version, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		api.Close()
		return nil, fmt.Errorf("ask the container engine for its version: %w", err)
	}
	return &Engine{api: api, version: version.Version}, nil
}

// named checks the engine that the environment names, if it does: whoever names
// one means it, and the library would look for another.
func named(ctx context.Context) error {
	host := os.Getenv(client.EnvOverrideHost)
	if host == "" {
		return nil
	}
	api, err := client.New(client.FromEnv)
	if err == nil {
		defer api.Close()
		_, err = api.Ping(ctx, client.PingOptions{})
	}
	if err != nil {
		return fmt.Errorf("find a container engine at %s, which %s names: %w", host, client.EnvOverrideHost, err)
	}
	return nil
}

// Close ends the connections to the engine.
func (e *Engine) Close() error { return e.api.Close() }

// Version returns the engine's version: "20.10.24".
func (e *Engine) Version() string { return e.version }

// State is what the engine says of a container.
type State struct {
	ID      string
	PID     int        // of its first process, as the engine sees it
	Address netip.Addr // in the run's network; the zero Addr while it is detached
	Running bool
	OOM     bool // the kernel killed a process of it for want of memory
}

// Inspect returns the state of a container by name. The error of one that
// isn't there, or not yet, is found by [IsNotFound].
func (e *Engine) Inspect(ctx context.Context, name string) (State, error) {
	result, err := e.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return State{}, fmt.Errorf("inspect container %s: %w", name, err)
	}
	s := State{ID: result.Container.ID}
	if state := result.Container.State; state != nil {
		s.PID, s.Running, s.OOM = state.Pid, state.Running, state.OOMKilled
	}
	if settings := result.Container.NetworkSettings; settings != nil {
		for _, endpoint := range settings.Networks {
			s.Address = endpoint.IPAddress
		}
	}
	return s, nil
}

// IsNotFound reports whether the engine doesn't know what was asked for.
func IsNotFound(err error) bool { return errdefs.IsNotFound(err) }

// ReadFile reads one file of a container, at most limit bytes of it.
func (e *Engine) ReadFile(ctx context.Context, name, path string, limit int64) ([]byte, error) {
	result, err := e.api.CopyFromContainer(ctx, name, client.CopyFromContainerOptions{SourcePath: path})
	if err != nil {
		return nil, fmt.Errorf("read %s of container %s: %w", path, name, err)
	}
	defer result.Content.Close()
	archive := tar.NewReader(result.Content)
	if _, err := archive.Next(); err != nil {
		return nil, fmt.Errorf("read %s of container %s: %w", path, name, err)
	}
	return io.ReadAll(io.LimitReader(archive, limit))
}

// Usage is what a container held and used, by the engine's own account.
type Usage struct {
	Resident int64 // bytes that can't be given back: anonymous memory and mapped files
	CPU      time.Duration
	OOM      bool // a process of it was killed for want of memory
}

// Usage asks the engine for a container's figures: for where its control group
// can't be read from here.
func (e *Engine) Usage(ctx context.Context, name string) (Usage, error) {
	result, err := e.api.ContainerStats(ctx, name, client.ContainerStatsOptions{})
	if err != nil {
		return Usage{}, fmt.Errorf("ask for the figures of container %s: %w", name, err)
	}
	defer result.Body.Close()
	var stats container.StatsResponse
	if err := json.NewDecoder(result.Body).Decode(&stats); err != nil {
		return Usage{}, fmt.Errorf("read the figures of container %s: %w", name, err)
	}
	u := Usage{CPU: time.Duration(stats.CPUStats.CPUUsage.TotalUsage)}
	// Version 1 of control groups names them rss and mapped_file, version 2
	// anon and file_mapped.
	for _, field := range []string{"total_rss", "total_mapped_file", "anon", "file_mapped"} {
		u.Resident += int64(stats.MemoryStats.Stats[field])
	}
	if u.Resident == 0 {
		return u, fmt.Errorf("the figures of container %s have no memory: it isn't running", name)
	}
	return u, nil
}

// CreateNetwork makes the run's own network.
func (e *Engine) CreateNetwork(ctx context.Context, run string) error {
	_, err := e.api.NetworkCreate(ctx, Name(run, ""), client.NetworkCreateOptions{Driver: "bridge", Labels: labels(run)})
	if err != nil {
		return fmt.Errorf("make the network %s: %w", Name(run, ""), err)
	}
	return nil
}

// Gateway returns this machine's own address on the run's network, if the engine runs
// on this machine.
func (e *Engine) Gateway(ctx context.Context, run string) (netip.Addr, error) {
	result, err := e.api.NetworkInspect(ctx, Name(run, ""), client.NetworkInspectOptions{})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("inspect the network %s: %w", Name(run, ""), err)
	}
	for _, c := range result.Network.IPAM.Config {
		if c.Gateway.IsValid() {
			return c.Gateway, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("inspect the network %s: the engine names no gateway", Name(run, ""))
}

// Detach takes a container off its run's network.
func (e *Engine) Detach(ctx context.Context, run, member string) error {
	_, err := e.api.NetworkDisconnect(ctx, Name(run, ""), client.NetworkDisconnectOptions{Container: Name(run, member), Force: true})
	if err != nil {
		return fmt.Errorf("detach container %s from its network: %w", Name(run, member), err)
	}
	return nil
}

// Attach puts a container back on its run's network, under its name there.
func (e *Engine) Attach(ctx context.Context, run, member string) error {
	_, err := e.api.NetworkConnect(ctx, Name(run, ""), client.NetworkConnectOptions{
		Container: Name(run, member), EndpointConfig: &network.EndpointSettings{Aliases: []string{member}},
	})
	if err != nil {
		return fmt.Errorf("attach container %s to its network again: %w", Name(run, member), err)
	}
	return nil
}

// Pause stops every process of a container where it stands.
func (e *Engine) Pause(ctx context.Context, run, member string) error {
	if _, err := e.api.ContainerPause(ctx, Name(run, member), client.ContainerPauseOptions{}); err != nil {
		return fmt.Errorf("pause container %s: %w", Name(run, member), err)
	}
	return nil
}

// Resume lets a paused container go on.
func (e *Engine) Resume(ctx context.Context, run, member string) error {
	if _, err := e.api.ContainerUnpause(ctx, Name(run, member), client.ContainerUnpauseOptions{}); err != nil {
		return fmt.Errorf("resume container %s: %w", Name(run, member), err)
	}
	return nil
}
