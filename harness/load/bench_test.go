package load

import (
	"net"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/timeline"

	"github.com/valyala/fasthttp"
)

// quick is the fastest server at hand, so that the generator is what is
// measured (both share the machine).
func quick(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 1024)
	s := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		d := wire.Description{Key: string(ctx.RequestURI()), Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour}
		ctx.Response.Header.Set(wire.Header, d.Seal(body))
		ctx.Response.SetBodyRaw(body)
	}}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Shutdown() })
	return "http://" + l.Addr().String()
}

// BenchmarkThroughput sends everything as fast as 64 connections take it.
func BenchmarkThroughput(b *testing.B) {
	load := smallLoad()
	load.Rate, load.Timeout = flat(1e9), time.Minute
	arm := oneArm(b, quick(b))
	arm.Connections = 64
	g := generator(b, Config{Arms: []Arm{arm}, Load: load, Length: time.Duration(b.N)})
	b.ReportAllocs()
	b.ResetTimer()
	report, err := g.Run(b.Context())
	if err != nil || report.Arms[0].Proven != uint64(b.N) || len(report.Arms[0].Failures) > 0 {
		b.Fatalf("%v, %+v", err, report)
	}
	b.ReportMetric(float64(b.N)/report.Elapsed.Seconds(), "req/s")
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
		a := answer{status: 200, length: 1024, proof: readProof(h)}
		_, _ = a.proof.digest.Write(body)
		if f := judge(e, &a); f.class != timeline.OK {
			b.Fatal(f.why)
		}
	}
}
