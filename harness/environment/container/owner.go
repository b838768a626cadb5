package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/prometheus/procfs"
)

// The labels of everything that a run makes.
const (
	labelRun   = "phasegate.run"
	labelOwner = "phasegate.owner"
	labelImage = "phasegate.image" // of an image: what it is for
)

// networkTime bounds the wait for a network's last container to be gone.
const networkTime = 3 * time.Second

// Name is what a member of a run is called: its container, or with no member
// its network.
func Name(run, member string) string {
	name := "phasegate-" + run
	if member != "" {
		name += "-" + member
	}
	return name
}

func labels(run string) map[string]string {
	return map[string]string{labelRun: run, labelOwner: self().String()}
}

// owner names a process beyond its number, which comes again: where it runs,
// and when it was started.
type owner struct {
	host      string // its machine's name and ID (machine-id(5)): names alone come twice at one engine
	boot      string // of the machine's kernel: another one after each start of it
	namespace string // in which the number counts
	pid       int
	born      uint64 // ticks from the kernel's start to the process's
}

func (o owner) String() string {
	return strings.Join([]string{o.host, o.boot, o.namespace, strconv.Itoa(o.pid), strconv.FormatUint(o.born, 10)}, "/")
}

// parseOwner reads what String wrote.
func parseOwner(text string) (o owner, err error) {
	f := strings.Split(text, "/")
	if len(f) != 5 {
		return o, fmt.Errorf("owner %q has %d parts; expected are 5", text, len(f))
	}
	pid, err := strconv.Atoi(f[3])
	born, errBorn := strconv.ParseUint(f[4], 10, 64)
	return owner{f[0], f[1], f[2], pid, born}, errors.Join(err, errBorn)
}

var self = sync.OnceValue(func() owner {
	host, _ := os.Hostname()
	id, _ := os.ReadFile("/etc/machine-id")
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, _ := os.Readlink("/proc/self/ns/pid")
	born, _ := birth(os.Getpid())
	return owner{host + "~" + strings.TrimSpace(string(id)), strings.TrimSpace(string(boot)), namespace, os.Getpid(), born}
})

// birth is when a process started; false if it isn't there.
func birth(pid int) (uint64, bool) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, false
	}
	stat, err := p.Stat()
	return stat.Starttime, err == nil && stat.State != "Z" && stat.State != "X"
}

// gone reports whether o is known to have ended, to an observer. Of a process
// on another machine, or in another namespace of numbers, nothing is known.
func (o owner) gone(observer owner, birth func(pid int) (uint64, bool)) bool {
	switch {
	case o.host != observer.host:
		return false
	case o.boot != observer.boot:
		return true // the machine was started again
	case o.namespace != observer.namespace:
		return false
	}
	born, alive := birth(o.pid)
	return !alive || born != o.born
}

// Sweep removes the containers and networks of runs whose owners have ended.
func (e *Engine) Sweep(ctx context.Context) error {
	return e.remove(ctx, client.Filters{}.Add("label", labelOwner), func(labels map[string]string) bool {
		o, err := parseOwner(labels[labelOwner])
		return err == nil && o.gone(self(), birth)
	})
}

// Remove removes everything of one run but its images.
func (e *Engine) Remove(ctx context.Context, run string) error {
	return e.remove(ctx, client.Filters{}.Add("label", labelRun+"="+run), func(map[string]string) bool { return true })
}

func (e *Engine) remove(ctx context.Context, of client.Filters, ours func(labels map[string]string) bool) error {
	var errs []error
	containers, err := e.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: of})
	errs = append(errs, err)
	for _, c := range containers.Items {
		if ours(c.Labels) {
			errs = append(errs, e.removeContainer(ctx, c.ID))
		}
	}
	networks, err := e.api.NetworkList(ctx, client.NetworkListOptions{Filters: of})
	errs = append(errs, err)
	for _, n := range networks.Items {
		if !ours(n.Labels) {
			continue
		}
		// While the engine, or another run, still removes a container of it, it
		// can't go.
		err := e.removeNetwork(ctx, n.ID)
		for deadline := time.Now().Add(networkTime); errdefs.IsPermissionDenied(err) && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
			err = e.removeNetwork(ctx, n.ID)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove containers and networks: %w", err)
	}
	return nil
}

// removeContainer kills and removes a container. That it is gone, or that
// somebody else is just removing it, is no error.
func (e *Engine) removeContainer(ctx context.Context, id string) error {
	_, err := e.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return err
}

func (e *Engine) removeNetwork(ctx context.Context, id string) error {
	_, err := e.api.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
