package forecast

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/reports/unit"
)

// say adds a sentence and keeps the worse outlook.
func (f *Gate) say(o Outlook, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.Why = append(f.Why, text)
	rank := map[Outlook]int{Open: 0, Given: 1, Undecided: 2, Impossible: 3}
	if rank[o] > rank[f.Outlook] {
		f.Outlook, f.short = o, text
	}
}

// gate is the outlook on one gate.
func (o *oracle) gate(g scenario.Gate) Gate {
	need := gate.NeedOf(g, o.h.schedule.look(o.f.Looks))
	f := Gate{Gate: g.Text, System: g.System, Outlook: Open, Why: []string{}}
	if why := o.notOffered(g.Metric, g.System); why != "" {
		f.say(Undecided, "%s", why)
		return f
	}
	f.Of, f.Clean, f.OneBad, f.Power, f.Truth, f.Allowed = need.Of, need.Clean, need.OneBad, need.Power, decimal(need.Truth), decimal(need.Allowed)
	closed := o.h.schedule.Plan.Load.Max && g.Metric.Source != scenario.FromSequential
	if need.Of != "" && !closed {
		f.Sample = o.sample(g.Metric, g.System)
	}
	length := o.h.schedule.End(o.f.Looks) - o.h.schedule.Warmup
	switch {
	case g.Metric.Source == scenario.FromSequential:
		o.improvement(&f, g)
	case g.Metric.Name == "client_http2_adoption" && !g.Holds(o.overHTTP2()) && (g.Op == scenario.Greater || g.Op == scenario.GreaterEqual):
		f.say(Impossible, "load.protocol asks for HTTP/2 in %s of the requests", unit.Exact(o.overHTTP2(), "share"))
	case need.Length > length:
		f.say(Undecided, "such a slope can be told from none from %s on at the earliest, where memory has no noise, and the steady state lasts %s%s", unit.Duration(need.Length.Seconds()),
			unit.Duration(length.Seconds()), o.remedy(g.System, func(p *scenario.Plan) bool { return judged(p) >= need.Length }))
	case need.Length > 0:
		f.say(Open, "such a slope can be told from none from %s on at the earliest, where memory has no noise, and the steady state lasts %s", unit.Duration(need.Length.Seconds()), unit.Duration(length.Seconds()))
	case need.Intervals > intervals(length):
		f.say(Undecided, "a bound needs at least %d intervals of %s, to see how much they depend on each other, and the steady state lasts %s%s", need.Intervals, Interval,
			unit.Duration(length.Seconds()), o.remedy(g.System, func(p *scenario.Plan) bool {
				return intervals(judged(p)) >= need.Intervals && (f.Sample == nil || o.enoughIn(p, g, *f.Sample))
			}))
		if s := o.system(g.System); !closed && o.rehearsed(g, s) {
			if last := gate.Judge(g, o.best, o.h.schedule.look(o.f.Looks)); last.Value != nil && !g.Holds(*last.Value) {
				f.say(Impossible, "%s", o.arithmetic(g, s, last))
			}
		}
	case closed:
		f.say(Open, "load.rate is max: how many requests there will be is what the run finds out")
		f.short = f.Why[0]
	case need.Allowed > 0:
		if o.enough(&f, g, need) {
			if o.feasible(&f, g); f.Outlook != Impossible {
				o.odds(&f, need)
			}
		}
	case g.Metric.Estimator == scenario.ByShare:
		f.say(Undecided, "no sample can show a share of exactly %s", unit.Exact(g.Threshold, "share"))
	case g.Metric.Source != scenario.FromResources:
		o.feasible(&f, g)
	}
	return f
}

// overHTTP2 is the share of the requests that are to go over HTTP/2.
func (o *oracle) overHTTP2() (share float64) {
	for _, p := range o.h.schedule.Plan.Load.Protocols {
		if p.Protocol != scenario.HTTP1 {
			share += p.Share
		}
	}
	return share
}

// decimal takes away what binary arithmetic leaves of 1 − 0.95.
func decimal(v float64) float64 { return math.Round(v*1e12) / 1e12 }

func (o *oracle) system(name string) *System {
	for i := range o.f.Systems {
		if o.f.Systems[i].Name == name {
			return &o.f.Systems[i]
		}
	}
	return nil
}

// notOffered says why a system won't offer a metric; "" if it may.
func (o *oracle) notOffered(m scenario.Metric, system string) string {
	plan := o.h.schedule.Plan
	s := plan.System(system)
	proof := m.Source == scenario.FromLedger || m.Estimator == scenario.ByCount || m.Name == "blocking_ratio"
	switch {
	case m.Source == scenario.FromNowhere:
		return m.Why
	case Unscheduled(plan, m):
		return ClosedLoop
	case m.Source == scenario.FromSequential && o.h.sequence() != "":
		return o.h.sequence()
	case m.Source == scenario.FromResources && s.Kind == scenario.KindDirect:
		return "there is no system to sample: requests go straight to the upstream"
	case m.Source == scenario.FromResources && s.Kind == scenario.KindURL:
		return fmt.Sprintf("the process behind %s is not ours to sample", s.URL)
	case m.Source == scenario.FromLedger && plan.Upstream == nil:
		return "the scenario has no mock upstream whose ledger would count"
	case proof && !plan.Load.Verify:
		return "verification is off, so nothing proves where answers come from"
	case m.Name == "latency_improvement" && (plan.System(scenario.Old) == nil || plan.System(scenario.Old).Share == 0):
		return "the old system gets no traffic to compare with"
	case m.Name == "negotiation_success" && clearText(*s):
		return "the system is given the upstream's clear-text port, so there is no TLS handshake"
	case m.Name == "client_negotiation_success" && !secured(plan, *s):
		return "load comes to the system in clear text, so there is no TLS handshake"
	}
	return ""
}

// secured reports whether load comes to a system over TLS.
func secured(plan *scenario.Plan, s scenario.System) bool {
	h2 := slices.ContainsFunc(plan.Load.Protocols, func(p scenario.ProtocolShare) bool { return p.Protocol == scenario.H2 })
	return h2 || s.URL != nil && s.URL.Scheme == "https"
}

// clearText reports whether a system has no way to the upstream's TLS port.
func clearText(s scenario.System) bool {
	switch s.Kind {
	case scenario.KindOptimizer, scenario.KindNginx, scenario.KindVarnish, scenario.KindHAProxy:
		return !s.UpstreamTLS
	case scenario.KindCommand:
		return !strings.Contains(strings.Join(s.Command, " "), "{upstream_tls}")
	}
	return s.Kind == scenario.KindDirect
}

// sample is how many of what a metric counts are expected; nil where the
// sequence doesn't tell.
func (o *oracle) sample(m scenario.Metric, system string) *int64 {
	s := o.system(system)
	var n int64
	switch m.Name {
	case "cache_hit_ratio", "revalidation_ratio", "blocking_ratio":
		n = s.Reads
	case "http2_adoption", "connection_reuse":
		n = s.Writes + int64(math.Round((1-s.OrdinaryHit)*float64(s.Reads)))
	case "negotiation_success", "client_negotiation_success", "claimed_hit_ratio", "false_hit_ratio", "duplicate_fetches":
		return nil
	default:
		n = s.Requests
	}
	return &n
}

// enough compares the sample with what a share needs; false if it is too small.
func (o *oracle) enough(f *Gate, g scenario.Gate, need gate.Need) bool {
	if f.Sample == nil {
		f.short = fmt.Sprintf("how many %s there are in the steady state is the system's choice, and there may be none; %s without a bad one decide, in %d intervals of %s or more", need.Of, unit.Count(need.Clean), need.Intervals, Interval)
		f.say(Open, "%s", f.short)
		return false
	}
	n, about := *f.Sample, about(need)
	bad := stat.Tolerated(n, need.Allowed, need.Confidence)
	if bad >= 0 {
		f.Bad = &bad
	}
	switch {
	case need.Clean == 0:
		f.say(Undecided, "no sample of a sensible size shows so small a share")
		return false
	case bad < 0:
		text := fmt.Sprintf("%s%s %s are too few: %s without a bad one are needed", about, unit.Count(n), need.Of, unit.Count(need.Clean))
		if rate := float64(n) / o.length().Seconds(); rate > 0 {
			text += fmt.Sprintf(" (%s at %s)", unit.Duration(math.Ceil(float64(need.Clean)/rate)), unit.Exact(math.Round(rate*10)/10, "1/s"))
		}
		f.say(Undecided, "%s%s", text, o.remedy(g.System, func(p *scenario.Plan) bool { return o.enoughIn(p, g, n) }))
		return false
	}
	return true
}

// about marks a sample that the sequence alone doesn't fix.
func about(need gate.Need) string {
	if need.Of == "upstream requests" {
		return "about "
	}
	return ""
}

// odds says how easily a sample that is large enough leaves a gate undecided.
func (o *oracle) odds(f *Gate, need gate.Need) {
	n, about := *f.Sample, about(need)
	if f.Bad != nil && *f.Bad == 0 {
		f.say(Open, "a single bad one of %s%s leaves it undecided: %s would be needed then", about, unit.Count(n), unit.Count(need.OneBad))
	}
	worth, as := f.independent(), ""
	if worth < n {
		as = fmt.Sprintf(", which count as %s independent ones,", unit.Count(worth))
	}
	if need.Power > worth && f.Outlook != Undecided {
		f.say(Open, "if %s are truly bad, half of what is allowed, %s%s%s decide it in %s of runs", unit.Exact(need.Truth, "share"),
			about, unit.Count(n), as, unit.Format(stat.Power(worth, need.Truth, need.Allowed, need.Confidence), "share"))
	}
}

func (o *oracle) length() time.Duration {
	s := o.h.schedule
	return s.End(s.Looks) - s.Warmup
}

// judged is the steady state of a plan, all looks taken.
func judged(p *scenario.Plan) time.Duration { return time.Duration(1+p.Extensions) * p.Steady }

// intervals is how many a window of a length has: the last may be a part of one.
func intervals(length time.Duration) int { return int((length + Interval - 1) / Interval) }

// enoughIn reports whether another plan brings a gate's clean sample, if this one
// brings n.
func (o *oracle) enoughIn(p *scenario.Plan, g scenario.Gate, n int64) bool {
	other := gate.NeedOf(g, gate.Look{Planned: 1 + p.Extensions, Confidence: p.Confidence})
	return float64(n)*judged(p).Seconds()/o.length().Seconds() >= float64(other.Clean)
}

// remedy names the profiles of the scenario that would do.
func (o *oracle) remedy(system string, would func(*scenario.Plan) bool) string {
	if o.h.schedule.Recorded != nil && !o.h.schedule.Plan.Load.Keys.Repeat {
		return "; " + gate.NoMore(0)
	}
	var names []string
	for _, p := range o.others {
		if p.Profile != o.f.Profile && p.System(system) != nil && would(p) {
			names = append(names, fmt.Sprintf("%s (%s)", p.Profile, unit.Duration(judged(p).Seconds())))
		}
	}
	switch len(names) {
	case 0:
		return "; no profile of this scenario is long enough"
	case 1:
		return "; profile " + names[0] + " is long enough"
	}
	return "; profiles " + strings.Join(names, " and ") + " are long enough"
}

// better is 1 where the best system has the highest value of a metric, −1
// where it has the lowest, and 0 where a rehearsal doesn't show it.
func better(m scenario.Metric) int {
	switch m.Name {
	case "cache_hit_ratio", "availability", "throughput", "latency_improvement":
		return 1
	case "error_rate", "blocking_ratio", "mean_latency", "max_latency", "wrong_responses", "stale_responses", "wrong_age":
		return -1
	}
	if m.Estimator == scenario.ByQuantile {
		return -1
	}
	return 0
}

// asksForGood reports whether the best system is the likeliest to satisfy c.
func asksForGood(c scenario.Condition) bool {
	atMost := c.Op == scenario.Less || c.Op == scenario.LessEqual
	return atMost && better(c.Metric) < 0 || !atMost && better(c.Metric) > 0
}

// rehearsed reports whether the sequence shows the best case of a gate: the whole
// of it does, and a part of it that of a cache that can't fill, which would go on
// getting better.
func (o *oracle) rehearsed(g scenario.Gate, s *System) bool {
	return asksForGood(g.Condition) && (o.h.complete || g.Metric.Name != "throughput" && !(s.MaxHit > 0))
}

// feasible has the gate judged in the best case, by the rules of a run.
func (o *oracle) feasible(f *Gate, g scenario.Gate) {
	s := o.system(g.System)
	if !o.rehearsed(g, s) {
		if asksForGood(g.Condition) && g.Metric.Name == "throughput" {
			o.share(f, g, s.Rate)
		}
		return
	}
	look := o.h.schedule.look(o.f.Looks)
	last := gate.Judge(g, o.best, look)
	o.together(f, gate.Effect(g, o.best, look), look)
	passes := last.Verdict == gate.Pass || o.f.Looks > 1 && gate.Judge(g, o.early, o.h.schedule.look(1)).Verdict == gate.Pass
	switch {
	case last.Value == nil:
		f.say(Undecided, "%s", last.Reason)
	case passes:
		o.given(f, g, s, *last.Value)
	case last.Verdict == gate.Fail || !g.Holds(*last.Value):
		f.say(Impossible, "%s", o.arithmetic(g, s, last))
	default:
		text := "even in the best case: " + o.arithmetic(g, s, last)
		if f.effect > 1 {
			text += fmt.Sprintf("; they come together, so %s count as %s independent ones, which are too few to show it", unit.Count(*f.Sample), unit.Count(f.independent()))
		}
		f.say(Undecided, "%s", text)
	}
}

// together takes into account that the bad ones which the sequence itself brings
// don't come one by one: what a sample tolerates is counted as a run will.
func (o *oracle) together(f *Gate, effect float64, look gate.Look) {
	if f.Bad == nil || !(effect > 1) {
		return
	}
	f.effect = effect
	n, confidence := float64(*f.Sample), gate.NeedOf(scenario.Gate{}, look).Confidence
	fewer := sort.Search(int(*f.Bad)+1, func(k int) bool {
		return !(stat.ClusteredUpper(float64(k), n, effect, confidence) < f.Allowed)
	}) - 1
	if f.Bad = nil; fewer >= 0 {
		bad := int64(fewer)
		f.Bad = &bad
	}
}

// independent is how many independent ones the expected sample counts as.
func (f *Gate) independent() int64 { return int64(float64(*f.Sample) / max(f.effect, 1)) }

// given says of a gate that can pass how much it asks.
func (o *oracle) given(f *Gate, g scenario.Gate, s *System, value float64) {
	switch {
	case g.Metric.Name == "throughput":
		o.share(f, g, value)
	case g.Metric.Estimator == scenario.ByQuantile && s.Known:
		if beyond := o.beyond(g); beyond < (1-g.Metric.Quantile)/2 {
			f.say(Given, "the upstream itself is fast enough: %s of its answers take %s or longer, and %s may, so a system without a cache passes too",
				unit.Format(beyond, "share"), threshold(g), unit.Exact(1-g.Metric.Quantile, "share"))
		}
	case g.Metric.Name == "cache_hit_ratio" && s.OrdinaryHit < value && !g.Holds(s.OrdinaryHit):
		f.say(Open, "an ordinary cache, which refreshes what is stale in the background, reaches %s: only one that refreshes less passes", unit.Format(s.OrdinaryHit, "share"))
	}
}

// share says what part of the offered requests must succeed.
func (o *oracle) share(f *Gate, g scenario.Gate, offered float64) {
	switch part := g.Threshold / offered; {
	case part >= 1:
		f.say(Impossible, "%s are offered, and no more can succeed", unit.Format(offered, "1/s"))
	case part < 0.9:
		f.say(Given, "the load is open, so %s of the %s offered must succeed, and nothing is said of what the system could do", unit.Format(part, "share"), unit.Format(offered, "1/s"))
	default:
		f.say(Open, "%s of the %s offered must succeed", unit.Format(part, "share"), unit.Format(offered, "1/s"))
	}
}

// easyHit is a time that hardly any hit takes: over loopback it is 0.1 ms, and
// 0.2 ms through a container's published port (README, measured).
const easyHit = time.Millisecond

// improvement is the outlook on a gate of the sequential stage.
func (o *oracle) improvement(f *Gate, g scenario.Gate) {
	plan, mean := o.h.schedule.Plan, o.h.thinking.mean.Seconds()
	turns := float64(plan.Sequential.Direct)
	if mean > 0 {
		turns = min(turns, math.Floor(SequentialTime.Seconds()/mean))
	}
	switch {
	case min(turns, float64(plan.Sequential.Hits)) < stat.MinIntervals:
		f.say(Undecided, "%s requests straight to the upstream and %s hits are too few: %d of each bound a ratio", unit.Count(int64(turns)), unit.Count(int64(plan.Sequential.Hits)), stat.MinIntervals)
	case g.Op == scenario.Less || g.Op == scenario.LessEqual:
	case plan.System(scenario.New).Kind == scenario.KindDirect:
		if !g.Holds(1) {
			f.say(Impossible, "both systems are the upstream itself, so the ratio is 1")
		}
	default:
		f.told = true
		outlook, rest := Given, ""
		if mean/g.Threshold < easyHit.Seconds() {
			outlook, rest = Open, "; so short a time is as much the machine's and the network's as the system's"
		}
		f.say(outlook, "it is the upstream's delay over a loopback round trip: %s ÷ %s asks that a hit take less than %s, whatever the cache%s",
			unit.Exact(mean, "s"), unit.Exact(g.Threshold, "ratio"), unit.Format(mean/g.Threshold, "s"), rest)
	}
}

// beyond is the share of the upstream's answers that miss a quantile's threshold.
func (o *oracle) beyond(g scenario.Gate) float64 {
	return o.h.thinking.beyond(time.Duration(math.Round(g.Threshold * float64(time.Second))))
}

func threshold(g scenario.Gate) string { return unit.Exact(g.Threshold, string(g.Metric.Unit)) }

// arithmetic shows why the best case isn't good enough.
func (o *oracle) arithmetic(g scenario.Gate, s *System, j gate.Judgement) string {
	text := o.shortfall(g, s, j)
	if s.queue != "" {
		text += "; " + s.queue
	}
	return text
}

func (o *oracle) shortfall(g scenario.Gate, s *System, j gate.Judgement) string {
	switch {
	case g.Metric.Estimator == scenario.ByQuantile && s.Known:
		beyond := o.beyond(g)
		w := o.best.Windows[g.System]
		slow := o.h.carried(slowest(w.Over, g.Threshold), s.Requests, w.Requests)
		return fmt.Sprintf("fewer than %s of %s requests (%s) may take %s or longer, and at least %s (%s) do: %s wait for the upstream (%s on average; %s of its answers take so long)",
			unit.Exact(1-g.Metric.Quantile, "share"), unit.Count(s.Requests), unit.Count(int64(math.Ceil((1-g.Metric.Quantile)*float64(s.Requests)-1e-6))), threshold(g),
			unit.Count(slow), unit.Format(float64(slow)/float64(s.Requests), "share"), s.causes(), unit.Exact(o.h.thinking.mean.Seconds(), "s"), unit.Format(beyond, "share"))
	case g.Metric.Name == "cache_hit_ratio":
		fetched := s.Reads - int64(math.Round(s.MaxHit*float64(s.Reads)))
		return fmt.Sprintf("at least %s of %s cacheable requests must go to the upstream (%s), so at most %s can be hits",
			unit.Count(fetched), unit.Count(s.Reads), s.fetches(), unit.Format(s.MaxHit, "share"))
	case g.Metric.Name == "throughput" && s.Queued == 0:
		return fmt.Sprintf("%s are offered, and no more can succeed", unit.Format(*j.Value, "1/s"))
	}
	text := fmt.Sprintf("the best that this sequence and this upstream allow is %s", unit.Beside(j.Value, g.Threshold, string(g.Metric.Unit)))
	if causes := s.causes(); causes != "" {
		text += fmt.Sprintf(": %s wait for the upstream (%s on average)", causes, unit.Exact(o.h.thinking.mean.Seconds(), "s"))
	}
	if timeout := o.h.schedule.Plan.Load.Timeout; s.Known && g.Metric.Unit == scenario.Share && o.h.thinking.beyond(timeout) > 0 {
		text += fmt.Sprintf(", and %s of its answers take longer than the timeout of %s", unit.Format(o.h.thinking.beyond(timeout), "share"), timeout)
	}
	return text
}

// slowest is what was counted at a threshold, to the nanosecond by which "or
// longer" and "longer" differ.
func slowest(over map[time.Duration]int64, seconds float64) int64 {
	at := time.Duration(math.Round(seconds * float64(time.Second)))
	if n, ok := over[at]; ok {
		return n
	}
	return over[at+1]
}

// causes lists the requests that wait for the upstream whatever the cache.
func (s *System) causes() string {
	unanswered := "reads that no cache may answer"
	if s.Kind == string(scenario.KindDirect) {
		unanswered = "reads without a cache"
	}
	return listed(part{s.First, "first requests for their target, which no cache holds"},
		part{s.Coalesced, "more while such an answer is on its way"},
		part{s.Uncacheable, unanswered},
		part{s.Writes, "writes"})
}

// fetches lists the reads that must go to the upstream.
func (s *System) fetches() string {
	return listed(part{s.First, "first requests for their target"},
		part{s.Uncacheable, "that no cache may answer"},
		part{s.Rewritten, "first after a write to their target"},
		part{s.Expired, "of a copy that has expired"},
		part{s.Lost, "given up before a connection is free"})
}

type part struct {
	n    int64
	what string
}

func listed(parts ...part) string {
	var texts []string
	for _, p := range parts {
		if p.n > 0 {
			texts = append(texts, unit.Count(p.n)+" "+p.what)
		}
	}
	return strings.Join(texts, " + ")
}
