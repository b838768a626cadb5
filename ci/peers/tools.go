package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// job is what a tool is asked to do.
type job struct {
	url         string // base URL
	rate        int    // requests per second; 0 is as many as the connections take
	connections int
	length      time.Duration
	http2       bool
	scratch     string // a folder
	program     string // the tool's own
}

// tool is one load generator: how it is asked to do a job, and how its figures
// are read. args is nil where it can't do the job, and lacks says why.
type tool struct {
	name, program string // program "" is this one
	loadOnly      bool   // not for the stall
	lacks         string
	args          func(j job) []string
	read          func(j job, out []byte) (figures, error)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

func (j job) target() string { return j.url + path }

func protocolOf(j job) string {
	if j.http2 {
		return "h2c"
	}
	return "http/1.1"
}

var tools = []tool{
	{
		name: "phasegate",
		args: func(j job) []string {
			return []string{"phasegate", "--url", j.url, "--rate", strconv.Itoa(j.rate), "--length", j.length.String(),
				"--connections", strconv.Itoa(j.connections), "--protocol", protocolOf(j)}
		},
		read: readOurs,
	},
	// What the same requests cost that are due as Fortio sends them: all connections
	// at once, then none for a while. Reading the times is in it.
	{
		name: "phasegate at once", loadOnly: true,
		args: func(j job) []string {
			if j.rate == 0 {
				return nil
			}
			times := j.scratch + "/times.log"
			if os.WriteFile(times, together(j), 0o644) != nil {
				return nil
			}
			return []string{"phasegate", "--url", j.url, "--times", times, "--length", j.length.String(), "--connections", strconv.Itoa(j.connections)}
		},
		read: readOurs,
	},
	// As it comes, all its connections send at once and then wait together; with
	// -uniform, which it recommends for latency, they take turns, as ours do.
	{
		name: "fortio", program: "fortio",
		args: func(j job) []string { return fortioArgs(j) },
		read: readFortio,
	},
	{
		name: "fortio -uniform", program: "fortio",
		args: func(j job) []string {
			if j.rate == 0 {
				return nil // nothing to spread
			}
			return fortioArgs(j, "-uniform")
		},
		read: readFortio,
	},
	{
		name: "vegeta", program: "vegeta",
		args: func(j job) []string {
			targets := j.scratch + "/targets"
			if os.WriteFile(targets, []byte("GET "+j.target()+"\n"), 0o644) != nil {
				return nil
			}
			n := strconv.Itoa(j.connections)
			args := []string{"attack", "-targets", targets, "-rate", strconv.Itoa(j.rate), "-duration", j.length.String(),
				"-max-workers", n, "-max-connections", n, "-connections", n, "-timeout", "30s", "-max-body", "0", "-output", j.scratch + "/vegeta.bin"}
			if j.http2 {
				args = append(args, "-h2c")
			}
			return args
		},
		read: readVegeta,
	},
	{
		name: "h2load", program: "h2load", lacks: "a rate that isn't whole on every connection",
		args: func(j job) []string {
			args := []string{"-c", strconv.Itoa(j.connections), "-D", seconds(j.length), "-t", strconv.Itoa(min(2, j.connections)), "-N", "30s"}
			if j.rate > 0 {
				if j.rate%j.connections != 0 && j.rate > j.connections {
					return nil
				}
				args = append(args, "--rps", strconv.FormatFloat(float64(j.rate)/float64(j.connections), 'f', -1, 64), "--log-file", j.scratch+"/h2load.log")
			}
			if !j.http2 {
				args = append(args, "--h1")
			} else {
				args = append(args, "-m", "100")
			}
			return append(args, j.target())
		},
		read: readH2load,
	},
	{
		// Its rate is one per connection, of whole requests per second or less.
		name: "hey", program: "hey", lacks: "HTTP/2 in clear text",
		args: func(j job) []string {
			if j.http2 {
				return nil
			}
			args := []string{"-c", strconv.Itoa(j.connections), "-z", j.length.String(), "-t", "30"}
			if j.rate > 0 {
				args = append(args, "-q", strconv.FormatFloat(float64(j.rate)/float64(j.connections), 'f', -1, 64))
			}
			return append(args, j.target())
		},
		read: readHey,
	},
	{
		// Each of its users has a connection of his own.
		name: "k6", program: "k6", lacks: "HTTP/2 in clear text",
		args: func(j job) []string {
			if j.http2 {
				return nil
			}
			script := j.scratch + "/k6.js"
			if os.WriteFile(script, k6Script(j), 0o644) != nil {
				return nil
			}
			return []string{"run", "--quiet", "--no-usage-report", script}
		},
		read: readK6,
	},
	{
		name: "wrk", program: "wrk", lacks: "a rate: it knows closed loops only",
		args: func(j job) []string {
			if j.http2 || j.rate > 0 {
				return nil
			}
			return []string{"-t", "2", "-c", strconv.Itoa(j.connections), "-d", seconds(j.length), "--latency", j.target()}
		},
		read: readWrk,
	},
}

// together is an access log, in nginx's JSON lines, of requests that fall due as
// many at once as there are connections.
func together(j job) []byte {
	var log bytes.Buffer
	for i := range int(float64(j.rate) * j.length.Seconds()) {
		at := float64(i/j.connections*j.connections) / float64(j.rate)
		fmt.Fprintf(&log, `{"msec":%.3f,"request":"GET %s HTTP/1.1","status":200}`+"\n", 1e9+at, path)
	}
	return log.Bytes()
}

func readOurs(_ job, out []byte) (f figures, err error) { return f, json.Unmarshal(out, &f) }

func fortioArgs(j job, more ...string) []string {
	args := []string{"load", "-quiet", "-json", "-", "-p", "99", "-r", "0.0001", "-c", strconv.Itoa(j.connections),
		"-qps", strconv.Itoa(j.rate), "-t", j.length.String(), "-timeout", "30s"}
	if j.http2 {
		args = append(args, "-stdclient", "-h2")
	}
	return append(append(args, more...), j.target())
}

func readFortio(_ job, out []byte) (figures, error) {
	var r struct {
		ActualDuration    int64
		DurationHistogram struct {
			Count       int64
			Percentiles []struct{ Percentile, Value float64 }
		}
		RetCodes map[string]int64
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return figures{}, err
	}
	f := figures{Requests: r.RetCodes["200"], Seconds: time.Duration(r.ActualDuration).Seconds()}
	for _, p := range r.DurationHistogram.Percentiles {
		if p.Percentile == 99 {
			f.P99 = time.Duration(p.Value * float64(time.Second))
		}
	}
	return f, nil
}

// readVegeta has vegeta itself report: its results went to a file, as in use.
func readVegeta(j job, _ []byte) (figures, error) {
	out, err := command(j.program, "report", "-type", "json", j.scratch+"/vegeta.bin").Output()
	if err != nil {
		return figures{}, err
	}
	var r struct {
		Latencies struct {
			P99 int64 `json:"99th"`
		}
		Duration, Wait int64
		StatusCodes    map[string]int64 `json:"status_codes"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return figures{}, err
	}
	return figures{Requests: r.StatusCodes["200"], Seconds: time.Duration(r.Duration + r.Wait).Seconds(), P99: time.Duration(r.Latencies.P99)}, nil
}

// readH2load takes the 99th percentile from its log of every request, since its
// summary has none.
func readH2load(j job, out []byte) (f figures, err error) {
	if f.Requests, err = match[int64](out, `(\d+) succeeded`); err != nil {
		return f, err
	}
	f.Seconds = j.length.Seconds()
	if j.rate == 0 {
		return f, nil
	}
	log, err := os.Open(j.scratch + "/h2load.log")
	if err != nil {
		return f, err
	}
	defer log.Close()
	var latencies []time.Duration
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) < 3 {
			return f, fmt.Errorf("a line of %d fields", len(fields))
		}
		us, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return f, err
		}
		latencies = append(latencies, time.Duration(us)*time.Microsecond)
	}
	f.P99 = p99(latencies)
	return f, nil
}

func readHey(_ job, out []byte) (f figures, err error) {
	if f.Requests, err = match[int64](out, `\[200\]\s+(\d+) responses`); err != nil {
		return f, err
	}
	if f.Seconds, err = match[float64](out, `Total:\s+([\d.]+) secs`); err != nil {
		return f, err
	}
	p, err := match[float64](out, `99%+ in ([\d.]+) secs`)
	f.P99 = time.Duration(p * float64(time.Second))
	return f, err
}

func readWrk(_ job, out []byte) (f figures, err error) {
	if f.Requests, err = match[int64](out, `(\d+) requests in`); err != nil {
		return f, err
	}
	if f.Seconds, err = match[float64](out, `requests in ([\d.]+)s`); err != nil {
		return f, err
	}
	m := regexp.MustCompile(`99%\s+(\S+)`).FindSubmatch(out)
	if m == nil {
		return f, errors.New("no 99% line")
	}
	f.P99, err = time.ParseDuration(string(m[1]))
	return f, err
}

// k6Script asks at a rate, or as often as its users can, and prints the figures.
func k6Script(j job) []byte {
	scenario := fmt.Sprintf(`executor: "constant-vus", vus: %d, duration: "%s"`, j.connections, j.length)
	if j.rate > 0 {
		scenario = fmt.Sprintf(`executor: "constant-arrival-rate", rate: %d, duration: "%s", preAllocatedVUs: %d, maxVUs: %d`, j.rate, j.length, j.connections, j.connections)
	}
	return fmt.Appendf(nil, `import http from "k6/http";
export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ["p(99)"],
  scenarios: {load: {%s, gracefulStop: "30s"}},
};
export default function () { http.get(%q); }
export function handleSummary(data) {
  return {stdout: JSON.stringify({
    requests: data.metrics.http_reqs.values.count - data.metrics.http_req_failed.values.passes,
    milliseconds: data.state.testRunDurationMs,
    p99: data.metrics.http_req_duration.values["p(99)"],
  })};
}
`, scenario, j.target())
}

func readK6(_ job, out []byte) (figures, error) {
	var r struct {
		Requests          int64
		Milliseconds, P99 float64
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return figures{}, err
	}
	ms := float64(time.Millisecond)
	return figures{Requests: r.Requests, Seconds: r.Milliseconds / 1000, P99: time.Duration(r.P99 * ms)}, nil
}

// match reads the number that a pattern's group finds.
func match[T int64 | float64](out []byte, pattern string) (n T, err error) {
	m := regexp.MustCompile(pattern).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("nothing matches %s in %.300q", pattern, bytes.TrimSpace(out))
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	return T(v), err
}

// p99 is the smallest of the values with at least 99 % at or below it.
func p99[T cmp.Ordered](values []T) (v T) {
	if len(values) == 0 {
		return v
	}
	slices.Sort(values)
	return values[int(math.Ceil(0.99*float64(len(values))))-1]
}
