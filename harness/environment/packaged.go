package environment

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"phasegate/fixtures/systems"
	"phasegate/harness/scenario"
)

// packaged is what is to be known of a server from a package beside its
// configuration.
type packaged struct {
	server  systems.Server
	program string
	debian  string   // the package that has it
	version []string // arguments that make it tell its version
}

var packages = map[scenario.Kind]packaged{
	scenario.KindNginx:   {systems.Nginx, "nginx", "nginx", []string{"-v"}},
	scenario.KindVarnish: {systems.Varnish, "varnishd", "varnish", []string{"-V"}},
	scenario.KindHAProxy: {systems.HAProxy, "haproxy", "haproxy", []string{"-v"}},
}

// sbin is where Debian has servers, which isn't on the PATH of plain users.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Installed looks for the program of a system of a packaged kind. The error, an
// *[Error], says what to install.
func Installed(s *scenario.System) error {
	_, err := packages[s.Kind].find(s.Name)
	return err
}

// find returns the program's path. The error is an *Error.
func (p packaged) find(system string) (string, error) {
	path, err := exec.LookPath(p.program)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, p.program)); err == nil {
			return path, nil
		}
	}
	return "", &Error{Op: "start it", System: system, Err: fmt.Errorf("%w, nor is it in %s", err, strings.Join(sbin, ", ")),
		Hint: fmt.Sprintf("Install the Debian package %s (apt-get install %[1]s), or put %s on PATH.", p.debian, p.program)}
}

// versionTime bounds the wait for a program to tell its version.
const versionTime = 5 * time.Second

// release is how all three tell it: "nginx/1.22.1", "varnish-7.1.1", "HAProxy
// version 2.6.12-1+deb12u4".
var release = regexp.MustCompile(`(?i)(?:nginx/|varnish-|haproxy version )([0-9]+(?:\.[0-9]+)*)`)

// told returns the version that a program tells; "" where it tells none.
func (p packaged) told(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, p.version...).CombinedOutput() // what it can't say is unknown
	if m := release.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}

// eitherProtocol is the first version of nginx whose clear-text port tells
// HTTP/2 from HTTP/1.1.
var eitherProtocol = []int{1, 25, 1}

// startPackaged runs a server from a package with a configuration of ours.
func (e *Environment) startPackaged(ctx context.Context, s *scenario.System) (*System, error) {
	const op = "start it"
	p := packages[s.Kind]
	if e.plan.Upstream == nil {
		return nil, &Error{Op: op, System: s.Name, Err: errNoUpstream}
	}
	path, err := p.find(s.Name)
	if err != nil {
		return nil, err
	}
	version := p.told(ctx, path)
	settings, err := e.settings(s, version)
	if err != nil {
		return nil, &Error{Op: "write its configuration", System: s.Name, Err: err}
	}
	if s.Kind == scenario.KindNginx && settings.HTTP2 && !settings.Either && settings.Certificate == "" && e.speaks(scenario.HTTP1) {
		return nil, &Error{Op: op, System: s.Name, Err: fmt.Errorf("nginx %s speaks either HTTP/1.1 or h2c at a clear-text port, not both", version),
			Hint: "Use nginx 1.25.1 or later, or load.protocol with one of them, or with h2 in the place of h2c."}
	}
	file := filepath.Join(settings.Dir, systems.FileName(p.server))
	text, err := systems.Render(p.server, settings)
	if err == nil {
		err = errors.Join(os.Mkdir(settings.Dir, 0o700), os.WriteFile(file, []byte(text), 0o600))
	}
	if err != nil {
		return nil, &Error{Op: "write its configuration", System: s.Name, Err: err}
	}
	process, err := e.spawn(ctx, s.Name, append([]string{path}, systems.Arguments(p.server, file, settings)...))
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: "http", Host: settings.Listen}
	if settings.Certificate != "" {
		u.Scheme = "https"
	}
	system := e.system(s, process, u)
	stored, logs := systems.CacheBytes(p.server, settings), false
	system.Setup = Setup{Version: version, CacheBytes: &stored, AccessLog: &logs}
	return system, e.waitHealthy(ctx, system, "")
}

// settings is what this run has its server's configuration say.
func (e *Environment) settings(s *scenario.System, version string) (systems.Settings, error) {
	listen, err := freeAddress()
	if err != nil {
		return systems.Settings{}, err
	}
	arm := e.ready.Arms[s.Name]
	out := systems.Settings{
		Dir:         filepath.Join(e.spawner.temp, s.Name),
		Listen:      listen,
		HTTP2:       e.speaks(scenario.H2) || e.speaks(scenario.H2C),
		Either:      atLeast(version, eitherProtocol),
		CacheBytes:  s.Cache.Bytes(),
		DefaultTTL:  s.Cache.DefaultTTL,
		Connections: connections(e.plan.Load.Connections),
	}
	address := arm.URL
	if s.UpstreamTLS {
		address, out.UpstreamCA = arm.TLSURL, e.ready.CAFile
	}
	u, err := baseURL(address)
	if err != nil {
		return out, err
	}
	out.Upstream = u.Host
	if e.speaks(scenario.H2) {
		if out.Certificate, err = e.certificate(s.Name); err != nil {
			return out, err
		}
	}
	if os.Geteuid() == 0 {
		root, err := user.LookupId("0")
		if err != nil {
			return out, fmt.Errorf("find the superuser's name: %w", err)
		}
		out.User = root.Username
	}
	return out, nil
}

// connections is how many a server has to take, as many as the load may open
// with what a prewarm and the probes add, and may take by the limit of open files.
func connections(load int) int {
	const least, filesEach = 4096, 4
	n := max(least, load*5/4)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Max < uint64(n)*filesEach {
		n = int(limit.Max / filesEach)
	}
	return n
}

// speaks reports whether the load comes over a protocol.
func (e *Environment) speaks(p scenario.Protocol) bool {
	if len(e.plan.Load.Protocols) == 0 {
		return p == scenario.HTTP1
	}
	return slices.ContainsFunc(e.plan.Load.Protocols, func(s scenario.ProtocolShare) bool { return s.Protocol == p })
}

// atLeast compares a version's numbers; one that isn't known is before all.
func atLeast(version string, least []int) bool {
	var numbers []int
	for text := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return false
		}
		numbers = append(numbers, n)
	}
	return slices.Compare(numbers, least) >= 0
}
