package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// serverMark is set in the environment of the benchmarks' server, which is this
// program once more: CPU time is then the generator's alone.
const serverMark = "LOAD_BENCHMARK_SERVER"

// quick is the fastest server at hand, so that the generator is what is
// measured (both share the machine).
func quick(b *testing.B) string {
	b.Helper()
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), serverMark+"=1")
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	in, err := server.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = server.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return "http://" + strings.TrimSpace(address)
}

// serveQuickly answers until standard input ends.
func serveQuickly() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	body := make([]byte, 1024)
	s := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		d := wire.Description{Key: string(ctx.RequestURI()), Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour}
		ctx.Response.Header.Set(wire.Header, d.Seal(body))
		ctx.Response.SetBodyRaw(body)
	}}
	go func() { _ = s.Serve(l) }()
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// used is the CPU time of this process.
func used(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// run is one measurement of a load with 64 connections.
func benchmark(b *testing.B, load scenario.Load, length time.Duration) {
	arm := oneArm(b, quick(b))
	arm.Connections = 64
	recorder, err := timeline.New(timeline.Config{Systems: []string{"new"}, Over: []time.Duration{10 * ms}})
	if err != nil {
		b.Fatal(err)
	}
	g := generator(b, Config{Arms: []Arm{arm}, Load: load, Length: length, Sink: recorder})
	b.ReportAllocs()
	b.ResetTimer()
	before := used(b)
	report, err := g.Run(b.Context())
	cpu := used(b) - before
	n := float64(report.Arms[0].Proven)
	if err != nil || report.Offered != uint64(n) || len(report.Arms[0].Failures) > 0 {
		b.Fatalf("%v, %+v", err, report)
	}
	b.ReportMetric(n/report.Elapsed.Seconds(), "req/s")
	b.ReportMetric(float64(cpu.Microseconds())/n, "cpu-µs/req")
}

// BenchmarkThroughput is the highest rate over 64 connections, every answer
// verified and recorded; -benchtime 100000x is a run of two seconds.
func BenchmarkThroughput(b *testing.B) {
	load := smallLoad()
	load.Rate, load.Max = nil, true
	benchmark(b, load, time.Duration(b.N)*20*time.Microsecond)
}

// BenchmarkPaced is what a request costs at 2,000/s.
func BenchmarkPaced(b *testing.B) {
	load := smallLoad()
	load.Rate = flat(2000)
	benchmark(b, load, time.Duration(b.N)*500*time.Microsecond)
}

// BenchmarkLag is how late sends are at 2,000/s, on a machine that has nothing
// else to do but answer.
func BenchmarkLag(b *testing.B) {
	load := smallLoad()
	load.Rate = flat(2000)
	arm := oneArm(b, quick(b))
	var report Report
	for b.Loop() {
		g := generator(b, Config{Arms: []Arm{arm}, Load: load, Length: 2 * time.Second, Warmup: 200 * ms})
		var err error
		if report, err = g.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(report.SteadyLag.P50.Microseconds()), "p50-µs")
	b.ReportMetric(float64(report.SteadyLag.P99.Microseconds()), "p99-µs")
	b.ReportMetric(float64(report.SteadyLag.Max.Microseconds()), "max-µs")
	b.ReportMetric(float64(report.Arms[0].Connections), "conns")
}

func BenchmarkPosition(b *testing.B) {
	m, err := newMix(zipfLoad(), 1)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var target []byte
	i := uint64(0)
	for b.Loop() {
		target = m.appendTarget(target[:0], m.at(i).target)
		i++
	}
}

func BenchmarkJudge(b *testing.B) {
	d := wire.Description{Key: "/items/k1", Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour}
	body := make([]byte, 1024)
	h := &fasthttp.ResponseHeader{}
	h.SetStatusCode(200)
	h.Set(wire.Header, d.Seal(body))
	e := expectation{method: "GET", target: []byte("/items/k1"), sent: time.Now(), verify: true}
	b.ReportAllocs()
	for b.Loop() {
		a := answer{status: 200, length: 1024, proof: noted(h).proof()}
		_, _ = a.proof.digest.Write(body)
		if f := judge(e, &a); f.class != timeline.OK {
			b.Fatal(f.why)
		}
	}
}
