package forecast

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

func openPlan(t *testing.T, name, profile string, set ...string) *scenario.Plan {
	t.Helper()
	plan, err := scenario.Open(name, func(string) ([]byte, error) { return nil, fs.ErrNotExist }, scenario.Options{Profile: profile, Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func compile(t *testing.T, src string, set ...string) *scenario.Plan {
	t.Helper()
	plan, err := scenario.Compile([]byte(src), "test.yaml", scenario.Options{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func forecast(t *testing.T, plan *scenario.Plan, others ...*scenario.Plan) *Forecast {
	t.Helper()
	f, err := New(plan, others...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *Forecast) gate(t *testing.T, text string) *Gate {
	t.Helper()
	for i := range f.Gates {
		if f.Gates[i].Gate == text {
			return &f.Gates[i]
		}
	}
	t.Fatalf("no gate %q", text)
	return nil
}

// The numbers of verdicts.md and of the scenarios' comments, and those of the
// first seed, which a run of it counts too.
func TestForecastOfThePhases(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		phase                  string
		rate                   float64 // on the new system
		requests, reads        int64
		availability           string
		clean, oneBad, allowed int64
		worst                  Outlook
		undecided              int
	}{
		{"phase1", 120, 7927, 7861, "availability > 99.95%", 5990, 9486, 0, Given, 0},
		{"phase2", 300, 19557, 19358, "availability > 99.98%", 14978, 23718, 0, Given, 0},
		{"phase3", 500, 32513, 32199, "availability > 99.99%", 29956, 47437, 0, Undecided, 4},
		{"phase4", 500, 32500, 32184, "availability > 99.99%", 29956, 47437, 0, Undecided, 5},
	} {
		t.Run(tt.phase, func(t *testing.T) {
			t.Parallel()
			f := forecast(t, openPlan(t, tt.phase, "quick"))
			s := f.Systems[1]
			if !f.Counted || s.Name != scenario.New || s.Rate != tt.rate || s.Requests != tt.requests || s.Steady != tt.requests || s.Reads != tt.reads || s.Reads+s.Writes != s.Requests {
				t.Errorf("%+v", s)
			}
			if d := math.Abs(float64(s.Requests) - tt.rate*65); d > 5*math.Sqrt(tt.rate*65) {
				t.Errorf("%d requests are far from %g/s × 65 s", s.Requests, tt.rate)
			}
			// The interfaces' simulation: hits above 98 %, a blocking share of 2 to 3 %.
			if s.MaxHit < 0.98 || s.Waiting < 0.02 || s.Waiting > 0.03 || s.Expired+s.Refreshed+s.Rewritten != 0 {
				t.Errorf("hits at most %g, waiting at least %g, %+v", s.MaxHit, s.Waiting, s)
			}
			a := f.gate(t, tt.availability)
			if a.Clean != tt.clean || a.OneBad != tt.oneBad || a.Bad == nil || *a.Bad != tt.allowed || *a.Sample != tt.requests || a.Outlook != Open {
				t.Errorf("%+v", a)
			}
			if why := strings.Join(a.Why, "; "); !strings.Contains(why, "a single bad one") {
				t.Errorf("%s says nothing of a single failure: %q", a.Gate, why)
			}
			undecided := 0
			for _, g := range f.Gates {
				if g.Outlook == Undecided {
					undecided++
				}
			}
			if f.Worst() != tt.worst || undecided != tt.undecided {
				t.Errorf("worst %s, %d undecided", f.Worst(), undecided)
			}
			if joint := strings.Join(f.Joint, "\n"); !strings.Contains(joint, "beside it is implied") || !strings.Contains(joint, "nothing expires") {
				t.Errorf("joint:\n%s", joint)
			}
			for _, tr := range f.Triggers {
				if tr.Outlook != Open {
					t.Errorf("trigger %+v", tr)
				}
			}
			// About 90 s, as the scenarios promise, and what drills take.
			total := f.Total()
			if drills := f.Duration[len(f.Duration)-1]; drills.Name == "drills" {
				if total -= drills.Seconds; drills.Seconds < 20 || drills.Seconds > 40 {
					t.Errorf("drills take %g s", drills.Seconds)
				}
			}
			if total < 80 || total > 95 {
				t.Errorf("takes %g s: %+v", total, f.Duration)
			}
		})
	}
	old := forecast(t, openPlan(t, "phase1", "quick")).Systems[0]
	if math.Abs(old.UnderWay-1057.92) > 1e-9 || old.Connections != 1587 || old.Waiting != 1 || old.MaxHit != 0 {
		t.Errorf("2,280/s × 0.464 s are 1,058 under way: %+v", old)
	}
}

const small = `
name: small
upstream: {latency: 400ms, cache_control: "max-age=600"}
systems: {new: {kind: optimizer}}
load: {rate: 100/s, keys: {distribution: uniform, count: 50}}
prewarm: {top: 50}
sequential: {direct: 12, hits: 200}
profiles: {quick: {warmup: 1s, steady: 20s}, standard: {warmup: 1s, steady: 20s, extensions: 1}, full: {steady: 1h}}
gates: [p95_latency < 10ms]
`

// What makes a gate hopeless, undecidable or empty, one scenario each.
func TestOutlooks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		set  []string
		gate string // in the place of the first
		want Outlook
		says string
	}{
		{"a warm cache that nothing makes wait", nil, "p95_latency < 10ms", Open, ""},
		{"a cold one waits for 50 first requests of 2,000, and some more", []string{"prewarm.top=0", "profiles.quick.warmup=0s"}, "p99_latency < 10ms", Impossible, "first requests for their target"},
		{"writes wait too", []string{"load.writes={share: 10%, path: /orders}"}, "p95_latency < 10ms", Impossible, "writes"},
		{"few enough of them", []string{"load.writes={share: 2%, path: /orders}"}, "p95_latency < 10ms", Open, ""},
		{"the upstream is fast enough itself", []string{"upstream.latency={mean: 5ms, p95: 6ms}"}, "p95_latency < 10ms", Given, "a system without a cache passes too"},
		{"a slope that is long enough, if memory is quiet", []string{"profiles.quick.steady=15m", "load.rate=5/s"}, "memory_growth_rate < 10MB/hour", Open, "from 12 m 35 s on at the earliest, where memory has no noise, and the steady state lasts 15 m"},
		{"a fixed latency below the threshold", []string{"upstream.latency=5ms"}, "p95_latency < 10ms", Given, "0 % of its answers take 10 ms or longer"},
		{"at its own p95 the upstream decides nothing: hits do", []string{"upstream.latency={mean: 464ms, p95: 520ms}"}, "p95_latency < 520ms", Open, ""},
		{"and without a cache that is a coin's throw", []string{"upstream.latency={mean: 464ms, p95: 520ms}", "systems.new={kind: direct}"}, "p95_latency < 521ms", Undecided, "even in the best case"},
		{"no cache, no hits", []string{"systems.new={kind: direct}"}, "cache_hit_ratio > 1%", Impossible, "at most 0 % can be hits"},
		{"what may not be stored isn't hit", []string{"upstream.cache_control=no-store"}, "cache_hit_ratio > 1%", Impossible, "that no cache may answer"},
		{"nor is what must be asked about each time", []string{"upstream.cache_control=no-cache"}, "cache_hit_ratio > 1%", Impossible, "that no cache may answer"},
		{"copies that live a second are fetched again and again", []string{"upstream.cache_control=max-age=1"}, "cache_hit_ratio > 70%", Impossible, "of a copy that has expired"},
		{"but nobody needs to wait for them", []string{"upstream.cache_control=max-age=1"}, "p95_latency < 10ms", Open, ""},
		{"an ordinary cache asks while it may serve stale", []string{"upstream.cache_control=max-age=1, stale-while-revalidate=600"}, "cache_hit_ratio > 70%", Open, "only one that refreshes less passes"},
		{"a write to what is cached takes it away", []string{"load.writes={share: 40%, path: '/items/{key}'}"}, "cache_hit_ratio > 70%", Impossible, "first after a write to their target"},
		{"too few requests", nil, "availability > 99.99%", Undecided, "2,000 requests are too few: 29,956 without a bad one are needed (5 m at 100/s); profile full (1 h) is long enough"},
		{"exactly all can't be shown", nil, "availability >= 100%", Undecided, "exactly 100 %"},
		{"more than is offered", nil, "throughput > 101/s", Impossible, "no more can succeed"},
		{"nearly all that is offered", nil, "throughput > 95/s", Open, "95.0 % of the 100.0/s"},
		{"next to nothing", nil, "throughput > 15/s", Given, "15.0 % of the 100.0/s offered must succeed"},
		{"a mean needs intervals", []string{"profiles.quick.steady=5s"}, "throughput > 15/s", Undecided, "10 intervals"},
		{"so does a share", []string{"profiles.quick.steady=9s"}, "error_rate < 0.5%", Undecided, "10 intervals"},
		{"and a quantile", []string{"profiles.quick.steady=9s"}, "p95_latency < 10ms", Undecided, "10 intervals"},
		{"that none can pass comes first", []string{"profiles.quick.steady=9s", "systems.new={kind: direct}"}, "p95_latency < 10ms", Impossible, "wait for the upstream"},
		{"in a closed loop too", []string{"profiles.quick.steady=5s", "load.rate=max", "load.connections=4"}, "throughput > 15/s", Undecided, "10 intervals"},
		{"which tells no more beforehand", []string{"load.rate=max", "load.connections=4"}, "throughput > 15/s", Open, "what the run finds out"},
		{"a slope needs time", nil, "memory_growth_rate < 10MB/hour", Undecided, "profile full (1 h) is long enough"},
		{"what isn't asked for isn't adopted", []string{"load.protocol={http/1.1: 50%, h2c: 50%}", "systems.new={kind: direct}"}, "client_http2_adoption > 80%", Impossible, "asks for HTTP/2 in 50 %"},
		{"nobody's process", []string{"systems.new={kind: direct}"}, "memory <= 100MB", Undecided, "no system to sample"},
		{"not by this version", nil, "dashboard_uptime > 99%", Undecided, "no dashboards"},
		{"no handshake on a clear-text port", nil, "negotiation_success > 95%", Undecided, "no TLS handshake"},
		{"handshakes are the system's choice", []string{"systems.new.upstream_tls=true"}, "negotiation_success > 95%", Open, "59 without a bad one decide"},
		{"nothing is proven without verification", []string{"load.verify=off"}, "cache_hit_ratio > 70%", Undecided, "verification is off"},
		{"nor that what is timed is a hit", []string{"load.verify=off", "systems.old={kind: direct}"}, "hit_latency_improvement > 10", Undecided, "verification is off"},
		{"no old system, no comparison", nil, "hit_latency_improvement > 10", Undecided, "the old system isn't the upstream"},
		{"any cache", []string{"systems.old={kind: direct}"}, "hit_latency_improvement > 100", Given, "less than 4.0 ms"},
		{"the upstream against itself", []string{"systems.old={kind: direct}", "systems.new={kind: direct}"}, "throughput_improvement > 2", Impossible, "the ratio is 1"},
		{"too few turns", []string{"systems.old={kind: direct}", "sequential.direct=9"}, "throughput_improvement > 2", Undecided, "10 of each bound a ratio"},
		{"too slow for enough turns", []string{"systems.old={kind: direct}", "upstream.latency=3s"}, "throughput_improvement > 2", Undecided, "6 requests straight"},
		{"slower than the timeout", []string{"systems.new={kind: direct}", "load.timeout=300ms"}, "error_rate < 5%", Impossible, "longer than the timeout"},
		{"the longest of all is a miss", []string{"load.writes={share: 2%, path: /orders}"}, "max_latency < 10ms", Impossible, "the best that this sequence and this upstream allow is 400.0 ms"},
		{"a claim that the worst would satisfy isn't rehearsed", nil, "p95_latency > 10ms", Open, ""},
		{"a server that runs already may hold anything", []string{"prewarm.top=0", "systems.new={kind: url, url: 'http://127.0.0.1:1'}"}, "p99_latency < 10ms", Open, ""},
	} {
		plan := compile(t, small, append(tt.set, "gates.0="+tt.gate)...)
		var others []*scenario.Plan
		for _, profile := range []string{"standard", "full"} {
			p, err := scenario.Compile([]byte(small), "test.yaml", scenario.Options{Profile: profile, Set: append(tt.set, "gates.0="+tt.gate)})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, p)
		}
		g := forecast(t, plan, others...).Gates[0]
		if why := strings.Join(g.Why, "; "); g.Outlook != tt.want || !strings.Contains(why, tt.says) {
			t.Errorf("%s: %s is %s: %q; want %s, %q", tt.why, tt.gate, g.Outlook, why, tt.want, tt.says)
		}
	}
}

// What one sequence makes of caches, counted by hand: one key, a request every
// second, from an upstream that takes 400 ms.
func TestRehearsalCounts(t *testing.T) {
	t.Parallel()
	const one = `
name: one
upstream: {latency: 400ms, cache_control: "max-age=600"}
systems: {new: {kind: optimizer}}
load: {rate: 1/s, keys: {distribution: uniform, count: 1}}
profiles: {quick: {steady: 20s}}
gates: [error_rate < 50%]
`
	for _, tt := range []struct {
		why  string
		set  []string
		want demand
	}{
		{"one fetch fills it", nil, demand{Requests: 20, Reads: 20, First: 1, Fetched: 1}},
		{"or the prewarm does", []string{"prewarm={top: 1}"}, demand{Requests: 20, Reads: 20}},
		{"or the warm-up", []string{"profiles.quick.warmup=5s"}, demand{Requests: 20, Reads: 20}},
		{"whoever comes while it is fetched waits too: at 0, 100, 200, 300 ms", []string{"load.rate=10/s", "profiles.quick.steady=1s"}, demand{Requests: 10, Reads: 10, First: 1, Coalesced: 3, Fetched: 1}},
		// Born at 0.4 s, fetched again at 6, 12 and 18 s.
		{"fresh for five seconds", []string{"upstream.cache_control=max-age=5"}, demand{Requests: 20, Reads: 20, First: 1, Expired: 3, Fetched: 4}},
		// An ordinary cache refreshes at 6, 12 and 18 s; the best one serves that
		// of 0.4 s until 15.4 s, and fetches at 16 s.
		{"and stale for ten more", []string{"upstream.cache_control=max-age=5, stale-while-revalidate=10"}, demand{Requests: 20, Reads: 20, First: 1, Refreshed: 3, Fetched: 2}},
		{"never stored", []string{"upstream.cache_control=private"}, demand{Requests: 20, Reads: 20, Uncacheable: 20, Fetched: 20}},
		{"no cache at all", []string{"systems.new={kind: direct}"}, demand{Requests: 20, Reads: 20, Uncacheable: 20, Fetched: 20}},
	} {
		h, err := rehearse(compile(t, one, tt.set...), maxRehearsed)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.arms[0].steady; got != tt.want || !h.complete {
			t.Errorf("%s: %+v, want %+v", tt.why, got, tt.want)
		}
	}
	// A write takes the copy away: reads that follow one are as many as runs of
	// writes that a read ends.
	plan := compile(t, one, "load.writes={share: 50%, path: '/items/{key}'}", "load.rate=50/s", "prewarm={top: 1}", "profiles.quick.steady=10s")
	h, err := rehearse(plan, maxRehearsed)
	if err != nil {
		t.Fatal(err)
	}
	d := h.arms[0].steady
	if d.Writes < 200 || d.Rewritten < 100 || d.Rewritten > d.Writes || d.Fetched != d.Rewritten || d.First != 0 {
		t.Errorf("%+v", d)
	}
}

// The draws fill the distribution: its share beyond any limit, its mean.
func TestThinkingIsTheUpstreams(t *testing.T) {
	t.Parallel()
	th, err := newThinking(scenario.Latency{Mean: 464 * time.Millisecond, P95: 520 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	sum, beyond := 0.0, 0
	for i := range uint64(n) {
		d := th.draw(i)
		sum += d.Seconds()
		if d >= 520*time.Millisecond {
			beyond++
		}
	}
	if math.Abs(sum/n-0.464) > 1e-4 || math.Abs(float64(beyond)/n-0.05) > 5e-4 || math.Abs(th.beyond(520*time.Millisecond)-0.05) > 1e-9 {
		t.Errorf("mean %g, beyond the p95 %g", sum/n, float64(beyond)/n)
	}
	if th.beyond(10*time.Millisecond) != 1 || th.beyond(0) != 1 {
		t.Error("nobody is within 10 ms of it")
	}
	fixed, _ := newThinking(scenario.Latency{Fixed: time.Second})
	if fixed.draw(7) != time.Second || fixed.beyond(time.Second) != 1 || fixed.beyond(time.Second+1) != 0 {
		t.Error("a fixed latency is fixed")
	}
}

func TestForecastOfTriggers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		set     []string
		trigger string
		want    Outlook
		says    string
	}{
		{"time enough", nil, "{when: p95_latency > 50ms, for: 10s}", Open, ""},
		{"to the second", nil, "{when: p95_latency > 50ms, for: 19s}", Open, ""},
		{"a second too few", nil, "{when: p95_latency > 50ms, for: 20s}", Given, "must hold for 20 s after the first 1 s, and the steady state lasts 20 s"},
		{"at once, and not even that", []string{"profiles.quick.steady=5s", "load.rate=5/s"}, "{when: error_rate > 5%}", Given, "it is evaluated from the first 10 s on, and the steady state lasts 5 s"},
		{"an extension gives time", []string{"profiles.quick.extensions=1"}, "{when: p95_latency > 50ms, for: 20s}", Open, ""},
		{"a time scale does", []string{"profiles.quick.time_scale=60"}, "{when: p95_latency > 50ms, for: 5m}", Open, ""},
		{"few requests are data late", []string{"load.rate=5/s"}, "{when: error_rate > 5%, for: 11s}", Given, "after the first 10 s"},
		{"no cache is slow at once", []string{"systems.new={kind: direct}"}, "{when: p95_latency > 50ms, for: 5s}", Impossible, "p95_latency is"},
		{"and hits nothing", []string{"systems.new={kind: direct}"}, "{when: cache_hit_ratio < 50%, for: 5s}", Impossible, "cache_hit_ratio is 0 %"},
		{"and has no process", []string{"systems.new={kind: direct}"}, "{when: memory > 1GB}", Given, "no system to sample"},
		{"a slope doesn't fit into a minute", nil, "{when: memory_growth_rate > 10MB/hour}", Given, "a slope needs 5 m, and its window is 60 s"},
		{"a comparison isn't made in a window", []string{"systems.old={kind: direct}", "traffic={new: 50%}"}, "{when: latency_improvement < 2}", Given, "can't be measured in a trigger's window"},
		{"not by this version", nil, "{when: dashboard_uptime < 50%}", Given, "no dashboards"},
		{"asking for what is good", nil, "{when: p95_latency < 50ms, for: 1s}", Open, ""},
	} {
		plan := compile(t, small, append(tt.set, "triggers=["+tt.trigger+"]")...)
		tr := forecast(t, plan).Triggers[0]
		if tr.Outlook != tt.want || !strings.Contains(tr.Why, tt.says) {
			t.Errorf("%s: %+v, want %s, %q", tt.why, tr, tt.want, tt.says)
		}
	}
}

// Whether a trigger on what is rarer than requests will have data, from what is
// expected in the longest window that it gets.
func TestForecastOfRareTriggers(t *testing.T) {
	t.Parallel()
	of := func(writes, steady string, scale string) []string {
		return []string{"load.writes={share: " + writes + ", method: POST, path: /orders}",
			"profiles={quick: {steady: " + steady + ", time_scale: " + scale + "}, standard: {steady: 10m}}", "systems.new={kind: optimizer, upstream_tls: true}"}
	}
	for _, tt := range []struct {
		why     string
		set     []string
		trigger string
		want    Outlook
		watched Watched
		says    string
	}{
		{"five a second, 25 in five seconds: it looks back further", of("5%", "65s", "60"), "{when: http2_adoption < 80%, for: 5m}", Open, Always, ""},
		{"and that takes its time", of("5%", "65s", "60"), "{when: http2_adoption < 80%, for: 60m}", Given, Always, "must hold for 60 s after the first 1"},
		{"one a second", of("1%", "65s", "60"), "{when: connection_reuse < 70%, for: 5m}", Open, Rarely, "about 4"},
		{"half of one", of("0.5%", "65s", "60"), "{when: http2_adoption < 80%}", Given, Never, "upstream requests are expected in 50 s, the longest window that it gets, and fewer than 50 are no data; profile standard (10 m) is long enough"},
		{"a window ends where the steady state does", of("5%", "4s", "60"), "{when: http2_adoption < 80%}", Given, Never, "are expected in 4 s, the longest"},
		{"handshakes are the system's choice", of("5%", "65s", "60"), "{when: negotiation_success < 95%, for: 5m}", Open, Perhaps, "50 TLS handshakes in 50 s"},
		{"what comes with each request is no news", of("1%", "65s", "60"), "{when: cache_hit_ratio < 30%, for: 5m}", Open, Always, ""},
		{"nor is a quantile", of("1%", "65s", "60"), "{when: p95_latency > 1s, for: 5m}", Open, Always, ""},
	} {
		plan := compile(t, small, append(tt.set, "triggers=["+tt.trigger+"]")...)
		standard, err := scenario.Compile([]byte(small), "test.yaml", scenario.Options{Set: append(tt.set, "triggers=["+tt.trigger+"]"), Profile: "standard"})
		if err != nil {
			t.Fatal(err)
		}
		f := forecast(t, plan, standard)
		tr := f.Triggers[0]
		if tr.Outlook != tt.want || tr.Watched != tt.watched || !strings.Contains(tr.Why, tt.says) || (tr.Why == "") != (tt.says == "") {
			t.Errorf("%s: %+v, want %s, watched %s, %q", tt.why, tr, tt.want, tt.watched, tt.says)
		}
		warned := map[Watched]string{Always: "can't fire", Perhaps: "may not be watched", Rarely: "will rarely be watched", Never: "can't be watched"}[tt.watched]
		if got := strings.Join(f.Warnings(), "\n"); strings.Contains(got, "trigger "+tr.Trigger+" "+warned) != (tr.Why != "") {
			t.Errorf("%s: warnings %q", tt.why, got)
		}
	}
}

// A replayed log is cold, and its first requests are counted exactly.
func TestForecastOfALog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	for i := range 1000 {
		path := "/popular"
		if i%5 == 0 { // 200 of 1,000 are asked for once
			path = "/rare/" + string(rune('a'+i/5%26)) + string(rune('a'+i/130))
		}
		log.WriteString(`192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET ` + path + ` HTTP/1.1" 200 100` + "\n")
	}
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte(log.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	f := forecast(t, compile(t, small, "load.keys={access_log: "+path+"}", "load.rate=50/s"))
	s := f.Systems[0]
	if s.First != 201 || s.Reads != 1000 || math.Abs(s.MaxHit-0.799) > 1e-9 || f.Gates[0].Outlook != Impossible {
		t.Errorf("%+v, %+v", s, f.Gates[0])
	}
	if !strings.Contains(f.Joint[0], "201 of its 1,000 reads (20.1 %) are the first for their target") {
		t.Error(f.Joint)
	}
	if n := len(f.Notes()); n != 1 || len(f.Warnings()) < 1 {
		t.Errorf("notes %q, warnings %q", f.Notes(), f.Warnings())
	}
	if _, err := New(compile(t, small, "load.keys={access_log: "+path+".none}")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a log that isn't there: %v", err)
	}
}

// The blog of 2015 can't have a p95 of 10 ms, in whatever split.
func TestForecastOfARealLog(t *testing.T) {
	t.Parallel()
	log := os.Getenv("PHASEGATE_TEST_ACCESS_LOG")
	if filepath.Base(log) != "blog-2015.combined.log.gz" {
		t.Skip("PHASEGATE_TEST_ACCESS_LOG doesn't name the blog's log of 2015")
	}
	for _, traffic := range []string{"{new: 5%, old: 95%}", "{new: 100%, old: 0%}"} {
		f := forecast(t, openPlan(t, "phase1", "quick", "load.keys.access_log="+log, "traffic="+traffic, "load.rate=500/s"))
		if g := f.gate(t, "p95_latency < 10ms"); g.Outlook != Impossible || !strings.Contains(f.Joint[0], "1,496 of its 9,994 reads (15.0 %) are the first") {
			t.Errorf("%s: %+v, %s", traffic, g, f.Joint[0])
		}
	}
}

// A pool that is too small for its waiting requests queues without end, and the
// gates are judged with that queue.
func TestForecastOfLimitedConnections(t *testing.T) {
	t.Parallel()
	gates := "gates=[error_rate < 5%, p95_latency < 1s, throughput > 80/s, wrong_responses <= 0]"
	limited := forecast(t, compile(t, small, "systems.new={kind: direct}", "load.connections=10", gates))
	enough := forecast(t, compile(t, small, "systems.new={kind: direct}", "load.connections=40", gates))
	// 100/s of 0.4 s each: 10 connections carry 25/s, and 75 of 100 wait for ever.
	const want = "100.0/s × 100 % that wait × 400 ms make 40 requests under way at once (Little's law), and load.connections has room for 10: requests queue without end"
	joint := strings.Join(limited.Joint, "\n")
	if !strings.Contains(joint, want) || !strings.Contains(joint, "it would take 60 connections, or at most 25.0/s") {
		t.Errorf("%q", limited.Joint)
	}
	if !strings.Contains(strings.Join(limited.Warnings(), "\n"), want) {
		t.Errorf("%q", limited.Warnings())
	}
	for _, gate := range []string{"error_rate < 5%", "p95_latency < 1s", "throughput > 80/s"} {
		if g := limited.gate(t, gate); g.Outlook != Impossible || !strings.Contains(strings.Join(g.Why, "\n"), want) {
			t.Errorf("%s: %s %q", gate, g.Outlook, g.Why)
		}
	}
	// The line soon lasts for as long as the timeout: whoever gets a connection
	// then hangs up before the answer, and only the first few are in time.
	if s := limited.Systems[0]; !s.Overloaded || s.Queued != s.Requests {
		t.Errorf("%d of %d stand in line", s.Queued, s.Requests)
	}
	if g := limited.gate(t, "throughput > 80/s"); !strings.Contains(g.Why[0], "allow is 7.") {
		t.Errorf("%q", g.Why)
	}
	if len(enough.Joint) != 0 || enough.Systems[0].Queued != 0 || enough.gate(t, "p95_latency < 1s").Outlook == Impossible {
		t.Errorf("%+v %q", enough.Systems[0], enough.Joint)
	}
	// A cache that is warm has room, and so have streams.
	for _, sets := range [][]string{{"load.connections=10"}, {"systems.new={kind: direct}", "load.protocol=h2c", "load.connections=10"}} {
		if f := forecast(t, compile(t, small, append(sets, gates)...)); f.Systems[0].Overloaded || f.gate(t, "p95_latency < 1s").Outlook == Impossible {
			t.Errorf("%v: %+v", sets, f.Systems[0])
		}
	}
}

// A schedule too long to be counted makes nothing impossible that might get
// better, and keeps its rates.
func TestForecastOfALongRun(t *testing.T) {
	t.Parallel()
	const most = 20_000 // of which the warm-up is 5,000
	h, err := rehearse(openPlan(t, "phase4", "full", "profiles.full.warmup=10s"), most)
	if err != nil {
		t.Fatal(err)
	}
	f := h.forecast(nil)
	s := f.Systems[1]
	if f.Counted || f.Rehearsed != most || s.Warmup != 5000 || s.Requests != 500*4*3600 || f.gate(t, "p95_latency < 1ms").Outlook != Open {
		t.Errorf("%d: %+v", f.Rehearsed, s)
	}
	// Without a cache nothing gets better with time.
	h, err = rehearse(openPlan(t, "phase4", "full", "profiles.full.warmup=10s", "systems.new={kind: direct}"), most)
	if err != nil {
		t.Fatal(err)
	}
	if g := h.forecast(nil).gate(t, "p95_latency < 1ms"); g.Outlook != Impossible || !strings.Contains(g.Why[0], "of 7,200,000 requests (360,000) may take 1 ms or longer, and at least 7,200,000 (100 %) do") {
		t.Errorf("%+v", g)
	}
	if math.Abs(float64(s.Writes)/float64(s.Requests)-0.01) > 3e-3 {
		t.Errorf("%d writes", s.Writes)
	}
}

// Where the bad ones that the sequence brings come together, nothing that is said
// of the sample counts them as if they didn't.
func TestClustersAreCountedAsTheRunDoes(t *testing.T) {
	t.Parallel()
	f := forecast(t, openPlan(t, "phase1", "quick", "load.rate={sine: {mean: 100/s, amplitude: 90/s, period: 10s}}"))
	g := f.gate(t, "p95_latency < 10ms")
	why := strings.Join(g.Why, "; ")
	if g.Outlook != Undecided || !strings.Contains(why, "and at least 4 (1.4 %) do") || !strings.Contains(why, "so 295 count as 126 independent ones") {
		t.Errorf("%s: %s", g.Outlook, why)
	}
	if g.Bad == nil || *g.Bad >= 4 {
		t.Errorf("4 bad ones are too many, and %v are said to be tolerated", g.Bad)
	}
	if joint := strings.Join(f.Joint, "\n"); !strings.Contains(joint, "(at most 2 of 295, to show it)") {
		t.Errorf("joint: %s", joint)
	}
	if strings.Contains(why, "decide it in") {
		t.Errorf("undecided whatever the system, and yet: %s", why)
	}
}
