package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"phasegate/fixtures/systems"
)

// proxyBench holds our proxy beside the others: all run at once before one upstream,
// and take turns, so that ratios are taken within a round.
type proxyBench struct {
	bench
	length time.Duration // of one run
}

// proxy is one that runs.
type proxy struct {
	name, url string
	process   *os.Process
}

// cacheBytes is the room of each for responses; ours keeps its whole process below it.
const cacheBytes = 100e6

// cachedKeys is how many keys there are where there is more than one.
const cachedKeys = 10_000

// measurements are the rows of a round. script is wrk's; wrk's own figures are printed by
// its last lines.
var measurements = []struct {
	title, script        string
	threads, connections int
	rate                 int // of our generator, open loop; 0: wrk
}{
	{title: "hits, one key", threads: 2, connections: 64},
	{title: "hits, 10,000 keys", threads: 2, connections: 64, script: fmt.Sprintf("request = function() return wrk.format('GET', '/keys/' .. math.random(%d)) end", cachedKeys)},
	{title: "misses, upstream of 0 ms", threads: 2, connections: 64, script: "local n, base = 0, 0\nlocal old = init\ninit = function(a) old(a); base = math.random(1e9) end\nrequest = function() n = n + 1; return wrk.format('GET', '/new/' .. base .. '/' .. n) end"},
	{title: "hits, 5,000/s open loop", connections: 64, rate: 5000},
	{title: "hits, one client after another: its mean is 1 s over the rate", threads: 1, connections: 1},
}

// wrkScript seeds each thread, and prints what wrk knows exactly.
const wrkScript = `init = function(args) math.randomseed(os.time() + tonumber(tostring({}):match('0x(%x+)'), 16) % 1e6) end
done = function(s, l, r)
  local e = s.errors
  print(string.format('{"Requests":%d,"Seconds":%.6f,"P50":%d,"P99":%d,"Errors":%d}', s.requests, s.duration / 1e6,
    l:percentile(50) * 1000, l:percentile(99) * 1000, e.connect + e.read + e.write + e.status + e.timeout))
end
`

// sample is one run against one proxy.
type sample struct {
	Requests, Errors int64
	Seconds          float64
	P50, P99         time.Duration
	cpu              time.Duration
	rss              int64
}

// proxies prints, for each measurement, what each proxy did.
func (b proxyBench) proxies(ctx context.Context, w io.Writer) error {
	dir, err := os.MkdirTemp("", "proxies-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	upstream, stop, err := b.server("--fresh")
	if err != nil {
		return err
	}
	defer stop()
	var all []proxy
	for _, name := range []string{"optimizer", "haproxy", "nginx", "varnish"} {
		p, stop, err := b.start(name, filepath.Join(dir, name), strings.TrimPrefix(upstream, "http://"))
		if errors.Is(err, errAbsent) {
			fmt.Fprintf(w, "%s: %v\n", name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		defer stop()
		if err := prime(ctx, p.url); err != nil {
			return fmt.Errorf("fill the cache of %s: %w", name, err)
		}
		all = append(all, p)
	}
	samples := make([]map[string][]sample, len(measurements))
	for round := range b.rounds {
		for i, m := range measurements {
			if round == 0 {
				samples[i] = map[string][]sample{}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".lua")), []byte(wrkScript+m.script), 0o600); err != nil {
					return err
				}
			}
			for _, p := range all {
				fmt.Fprintf(os.Stderr, "round %d, %s, %s …\n", round+1, m.title, p.name)
				args := []string{"-t" + strconv.Itoa(m.threads), "-c" + strconv.Itoa(m.connections), "-d" + seconds(b.length), "-s", filepath.Join(dir, fmt.Sprint(i, ".lua")), p.url + path}
				program := "wrk"
				if m.rate > 0 {
					program = b.self
					args = []string{"phasegate", "--url", p.url, "--rate", strconv.Itoa(m.rate), "--length", b.length.String(), "--connections", strconv.Itoa(m.connections)}
				}
				s, err := p.measure(ctx, program, args...)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", m.title, p.name, err)
				}
				samples[i][p.name] = append(samples[i][p.name], s)
			}
		}
	}
	fmt.Fprintf(w, "%d rounds in turn, %s a run; medians; OF: the optimizer's figure over the peer's, within a round\n", b.rounds, b.length)
	for i, m := range measurements {
		printProxies(w, m.title, all, samples[i])
	}
	return nil
}

func printProxies(w io.Writer, title string, all []proxy, samples map[string][]sample) {
	fmt.Fprintf(w, "\n%s\n", title)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROXY\tREQUESTS/S\tOF\tCPU PER REQUEST\tOF\tP50\tP99\tOF\tRSS\tERRORS")
	for _, p := range all {
		runs, ours := samples[p.name], samples["optimizer"]
		median := func(of func(i int) float64) float64 { return medianOf(len(runs), of) }
		rate := func(s sample) float64 { return float64(s.Requests) / s.Seconds }
		cpu := func(s sample) float64 { return s.cpu.Seconds() * 1e6 / float64(s.Requests) }
		p99 := func(s sample) float64 { return s.P99.Seconds() * 1e3 }
		of := func(f func(sample) float64) string {
			if p.name == "optimizer" || len(ours) != len(runs) {
				return "-"
			}
			return fmt.Sprintf("%.2f", median(func(i int) float64 { return f(ours[i]) / f(runs[i]) }))
		}
		value := func(f func(sample) float64) float64 { return median(func(i int) float64 { return f(runs[i]) }) }
		p50 := "-" // our generator doesn't print it
		if v := value(func(s sample) float64 { return s.P50.Seconds() * 1e3 }); v > 0 {
			p50 = fmt.Sprintf("%.2f ms", v)
		}
		fmt.Fprintf(table, "%s\t%.0f\t%s\t%.1f µs\t%s\t%s\t%.2f ms\t%s\t%.0f MB\t%.0f\n", p.name, value(rate), of(rate), value(cpu), of(cpu), p50, value(p99), of(p99),
			value(func(s sample) float64 { return float64(s.rss) / 1e6 }), value(func(s sample) float64 { return float64(s.Errors) }))
	}
	table.Flush()
}

// start starts a proxy on a free port, before the upstream at HOST:PORT.
func (b proxyBench) start(name, dir, upstream string) (p proxy, stop func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return p, nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return p, nil, err
	}
	var c *exec.Cmd
	if name == "optimizer" {
		c = command(filepath.Join(b.bin, "..", "optimizer"), "--upstream", "http://"+upstream, "--listen", address)
	} else {
		server := systems.Server(name)
		program, err := exec.LookPath(map[systems.Server]string{systems.Nginx: "nginx", systems.Varnish: "varnishd", systems.HAProxy: "haproxy"}[server])
		if err != nil {
			return p, nil, errAbsent
		}
		settings := systems.Settings{Dir: dir, Listen: address, Upstream: upstream, CacheBytes: cacheBytes}
		if me, err := user.Current(); err == nil && me.Uid == "0" {
			settings.User = me.Username
		}
		text, err := systems.Render(server, settings)
		if err != nil {
			return p, nil, err
		}
		file := filepath.Join(dir, systems.FileName(server))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return p, nil, err
		}
		c = command(program, systems.Arguments(server, file, settings)...)
	}
	return launch(name, "http", dir, address, c)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// launch starts a proxy's program, whose log goes to its folder, and waits until it
// listens.
func launch(name, scheme, dir, address string, c *exec.Cmd) (p proxy, stop func(), err error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return p, nil, err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return p, nil, err
	}
	stop = func() {
		_ = c.Process.Signal(os.Interrupt)
		forced := time.AfterFunc(5*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		forced.Stop()
	}
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return proxy{name, scheme + "://" + address, c.Process}, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	text, _ := os.ReadFile(filepath.Join(dir, "log"))
	return p, nil, fmt.Errorf("it doesn't listen on %s; it said: %.500s", address, text)
}

// prime asks for every key once.
func prime(ctx context.Context, url string) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := range cachedKeys + 1 {
		target := url + path
		if i > 0 {
			target = url + "/keys/" + strconv.Itoa(i)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: status %d, %w", target, resp.StatusCode, err)
		}
	}
	return nil
}

// measure runs a generator that prints its figures as JSON in its last line.
func (p proxy) measure(ctx context.Context, program string, args ...string) (s sample, err error) {
	c := exec.CommandContext(ctx, program, args...)
	before, _, err := usage(p.process.Pid)
	if err != nil {
		return s, err
	}
	out, err := c.Output()
	if err != nil {
		return s, fmt.Errorf("run %s: %w", program, err)
	}
	after, rss, err := usage(p.process.Pid)
	if err != nil {
		return s, err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		return s, fmt.Errorf("read what %s printed, %.300q: %w", program, out, err)
	}
	if s.Requests == 0 {
		return s, fmt.Errorf("%s got no answer: %.300q", program, out)
	}
	s.cpu, s.rss = after-before, rss
	return s, nil
}

// usage is the CPU time and the resident memory of a process and its children. Shared
// pages count once for each.
func usage(pid int) (cpu time.Duration, rss int64, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, 0, err
	}
	type process struct {
		parent int
		cpu    time.Duration
		rss    int64
	}
	all := map[int]process{}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest) // from the state on, which is the third
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		number := func(i int) int64 { n, _ := strconv.ParseInt(f[i-3], 10, 64); return n }
		all[id] = process{int(number(4)), time.Duration(number(14)+number(15)) * time.Second / 100, number(24) * int64(os.Getpagesize())}
	}
	if _, ok := all[pid]; !ok {
		return 0, 0, fmt.Errorf("process %d has ended", pid)
	}
	for id, p := range all {
		for at := id; at > 1; at = all[at].parent {
			if at == pid {
				cpu += p.cpu
				rss += p.rss
				break
			}
		}
	}
	return cpu, rss, nil
}
