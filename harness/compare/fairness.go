package compare

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"phasegate/harness"
	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// How far systems may lie apart and still have done the same work.
const (
	maxLoadGap = 0.01 // of the requests sent
	maxWarmGap = 0.05 // of the hit ratio in the first second
	minReuse   = 0.8  // of upstream requests on a connection that was used before
	minReads   = 100  // upstream requests from which reuse says something
	maxSizeGap = 0.05 // of the room for stored responses
	maxHTTP2   = 0.05 // between the shares of upstream requests over HTTP/2
)

// subject is what the checks look at: one system and its runs.
type subject struct {
	System
	kind scenario.Kind
	runs []*result.Result
}

// caches reports whether there is something to be a cache: straight to the
// upstream there isn't.
func (s subject) caches() bool { return s.kind != scenario.KindDirect }

// mean is a metric's mean over the rounds that have it.
func (s subject) mean(metric string) (float64, bool) { return mean(values(s.runs, metric)) }

func mean(values []float64) (float64, bool) {
	list := finite(values)
	var sum float64
	for _, v := range list {
		sum += v
	}
	return sum / float64(len(list)), len(list) > 0
}

// fairness checks whether the systems did the same work under the same
// conditions. What can't be known is said to be unknown.
func fairness(systems []System, whole [][]*result.Result) []result.FairnessCheck {
	var all, caches []subject
	for i, s := range systems {
		x := subject{s, s.Plan.System(scenario.New).Kind, whole[i]}
		if len(x.runs) == 0 {
			return nil
		}
		all = append(all, x)
		if x.caches() {
			caches = append(caches, x)
		}
	}
	out := []result.FairnessCheck{sameLoad(all), sameProtocol(all), quietMachine(all)}
	if c, ok := containedAlike(all); ok {
		out = append(out, c)
		out = append(out, limitedAlike(all))
	}
	if c, ok := startedAlike(all); ok {
		out = append(out, c)
	}
	if len(caches) > 1 {
		out = append(out, warmedAlike(caches), upstreamProtocol(caches), keepAlive(caches))
		out = append(out, declared(caches)...)
	}
	return out
}

// check makes one from what was found of each system.
func check(name, state string, found []string) result.FairnessCheck {
	return result.FairnessCheck{Check: name, State: state, Found: strings.Join(found, "; ")}
}

// startedAlike finds servers that were running before, if there are any: what a
// round leaves in them is there in the next.
func startedAlike(all []subject) (_ result.FairnessCheck, ok bool) {
	var running []string
	for _, s := range all {
		if s.kind == scenario.KindURL {
			running = append(running, s.Name+" is a server that runs on from round to round")
		}
	}
	return check("freshly started for every round", result.Violated, running), len(running) > 0
}

func sameLoad(all []subject) result.FairnessCheck {
	const name = "same load sent"
	var found []string
	state, least, most := result.Held, math.Inf(1), 0.0
	for _, s := range all {
		var requests, sent, due float64
		for _, res := range s.runs {
			requests += float64(res.Systems[scenario.New].Requests)
			if res.Load != nil {
				sent, due = sent+res.Load.SentRate, due+res.Load.OfferedRate
			}
		}
		closed := s.Plan.Load.Max
		if !closed {
			least, most = min(least, requests), max(most, requests)
		}
		text := fmt.Sprintf("%s %s requests", s.Name, unit.Count(int64(requests)))
		if due > 0 && sent < (1-maxLoadGap)*due && !closed {
			state = result.Violated
			text += fmt.Sprintf(", only %s of what was due was sent", unit.Format(sent/due, "share"))
		}
		found = append(found, text)
	}
	if most > 0 && least < (1-maxLoadGap)*most {
		state = result.Violated
	}
	return check(name, state, found)
}

func sameProtocol(all []subject) result.FairnessCheck {
	const name = "same protocol to the system"
	var found []string
	spoken := map[string]bool{}
	for _, s := range all {
		var protocols []string
		for _, res := range s.runs {
			if res.Load == nil {
				continue
			}
			for _, p := range res.Load.Spoken {
				if p.System == scenario.New && p.Requests > 0 && !slices.Contains(protocols, p.Protocol) {
					protocols = append(protocols, p.Protocol)
				}
			}
		}
		slices.Sort(protocols)
		text := strings.Join(protocols, " and ")
		if text == "" {
			text = "nothing"
		}
		spoken[text] = true
		found = append(found, s.Name+" "+text)
	}
	if len(spoken) > 1 {
		return check(name, result.Violated, found)
	}
	return check(name, result.Held, found)
}

// containedAlike looks at where the systems ran: a container costs latency, and
// its limits are enforced, which those of a process aren't. There is nothing to
// say where no container took part.
func containedAlike(all []subject) (c result.FairnessCheck, ok bool) {
	const name = "in a container alike"
	var found []string
	contained, process := false, false
	for _, s := range all {
		switch {
		case s.runs[0].Environment.Upstream != harness.Contained:
			return c, false
		case s.kind == scenario.KindOptimizer || s.kind == scenario.KindContainer:
			contained = true
			found = append(found, s.Name+" in a container")
		case s.kind == scenario.KindDirect:
			found = append(found, s.Name+" straight to the upstream's container")
		default:
			process = true
			found = append(found, s.Name+" beside it")
		}
	}
	if contained && process {
		return check(name, result.Violated, found), true
	}
	return check(name, result.Held, found), true
}

// limitedAlike looks at what the containers may use.
func limitedAlike(all []subject) result.FairnessCheck {
	const name = "same limits of the containers"
	var found []string
	limits := map[scenario.Limits]bool{}
	for _, s := range all {
		if s.kind != scenario.KindOptimizer && s.kind != scenario.KindContainer {
			continue
		}
		l := s.Plan.Limits(scenario.New)
		limits[l] = true
		memory, cpus := "any memory", "all CPUs"
		if l.Memory > 0 {
			memory = unit.Format(float64(l.Memory), "B")
		}
		if l.CPUs > 0 {
			cpus = fmt.Sprintf("%g CPUs", l.CPUs)
		}
		found = append(found, fmt.Sprintf("%s %s and %s", s.Name, memory, cpus))
	}
	if len(limits) > 1 {
		return check(name, result.Violated, found)
	}
	return check(name, result.Held, found)
}

// quietMachine looks at the CPU time that went to others on the machine's host.
func quietMachine(all []subject) result.FairnessCheck {
	const name = "machine left to the systems"
	var found []string
	state := result.Held
	for _, s := range all {
		worst := 0.0
		for _, res := range s.runs {
			if res.Load != nil {
				worst = max(worst, res.Load.Stolen)
			}
		}
		if worst > gate.MaxStolen {
			state = result.Violated
		}
		found = append(found, fmt.Sprintf("%s at most %s of the CPU time went to others", s.Name, unit.Format(worst, "share")))
	}
	return check(name, state, found)
}

// warmedAlike looks at what was asked for before the clock started and at the
// hit ratio in the first second of load.
func warmedAlike(all []subject) result.FairnessCheck {
	const name = "warmed alike"
	var found []string
	state, least, most := result.Held, math.Inf(1), 0.0
	prewarmed := map[int64]bool{}
	for _, s := range all {
		var asked, failed int64
		var hits []float64
		for _, res := range s.runs {
			if res.Load != nil {
				asked, failed = max(asked, res.Load.Prewarmed), failed+res.Load.PrewarmFailed
			}
			for _, in := range res.Timeline {
				if in.System == scenario.New {
					if in.HitRatio != nil {
						hits = append(hits, *in.HitRatio)
					}
					break
				}
			}
		}
		prewarmed[asked] = true
		text := fmt.Sprintf("%s %s keys", s.Name, unit.Count(asked))
		if failed > 0 {
			state = result.Violated
			text += fmt.Sprintf(" (%s without an answer)", unit.Count(failed))
		}
		if hit, ok := mean(hits); ok {
			least, most = min(least, hit), max(most, hit)
			text += ", then a hit ratio of " + unit.Format(hit, "share") + " in the first second"
		} else {
			if state == result.Held {
				state = result.Unknown
			}
			text += ", its first hits are unknown"
		}
		found = append(found, text)
	}
	if len(prewarmed) > 1 || most-least > maxWarmGap {
		state = result.Violated
	}
	return check(name, state, found)
}

func upstreamProtocol(all []subject) result.FairnessCheck {
	const name = "same protocol to the upstream"
	var found []string
	state, least, most := result.Held, math.Inf(1), 0.0
	tls := map[bool]bool{}
	for _, s := range all {
		share, ok := s.mean("http2_adoption")
		if !ok {
			if state == result.Held {
				state = result.Unknown
			}
			found = append(found, s.Name+" unknown: it asked the upstream for nothing in the steady state")
			continue
		}
		least, most = min(least, share), max(most, share)
		encrypted := s.encrypted()
		tls[encrypted] = true
		text := s.Name + " HTTP/1"
		switch {
		case share > 1-maxHTTP2:
			text = s.Name + " HTTP/2"
		case share > maxHTTP2:
			text = fmt.Sprintf("%s %s HTTP/2", s.Name, unit.Format(share, "share"))
		}
		if encrypted {
			text += " over TLS"
		}
		found = append(found, text)
	}
	if most-least > maxHTTP2 || len(tls) > 1 {
		state = result.Violated
	}
	return check(name, state, found)
}

// encrypted reports whether the system was pointed at the upstream's TLS port.
func (s subject) encrypted() bool {
	plan := s.Plan.System(scenario.New)
	return plan.UpstreamTLS || slices.ContainsFunc(slices.AppendSeq(slices.Clone(plan.Command), maps.Values(plan.Env)), func(arg string) bool { return strings.Contains(arg, "{upstream_tls}") })
}

func keepAlive(all []subject) result.FairnessCheck {
	const name = "keep-alive to the upstream"
	var found []string
	missed, unknown := false, false
	for _, s := range all {
		reuse, ok := s.mean("connection_reuse")
		reads := 0.0
		for _, res := range s.runs {
			for _, in := range res.Timeline {
				if in.System == scenario.New && in.Stage == "steady" && in.UpstreamRequests != nil {
					reads += float64(*in.UpstreamRequests)
				}
			}
		}
		switch {
		case !ok || reads < minReads:
			unknown = true
			found = append(found, fmt.Sprintf("%s unknown: %s upstream requests are too few to tell", s.Name, unit.Count(int64(reads))))
			continue
		case reuse < minReuse:
			missed = true
		}
		found = append(found, fmt.Sprintf("%s %s on a connection used before", s.Name, unit.Format(reuse, "share")))
	}
	switch {
	case missed: // also where all do without: none is at its best then
		return check(name, result.Violated, found)
	case unknown:
		return check(name, result.Unknown, found)
	}
	return check(name, result.Held, found)
}

// declared are the checks on what a system was told rather than seen to do. A
// program of the user's own says nothing of it.
func declared(all []subject) []result.FairnessCheck {
	least, most := int64(math.MaxInt64), int64(0)
	size := compared("same cache size in force", all, func(s *result.Setup) string {
		if s.CacheBytes == nil {
			return ""
		}
		least, most = min(least, *s.CacheBytes), max(most, *s.CacheBytes)
		return unit.Format(float64(*s.CacheBytes), "B")
	})
	if float64(most-least) > maxSizeGap*float64(most) {
		size.State = result.Violated
	}
	with, without := false, false
	logging := compared("logging alike", all, func(s *result.Setup) string {
		switch {
		case s.AccessLog == nil:
			return ""
		case *s.AccessLog:
			with = true
			return "logs every request"
		}
		without = true
		return "has no access log"
	})
	if with && without {
		logging.State = result.Violated
	}
	return []result.FairnessCheck{size, logging}
}

// compared puts a declared fact of all systems side by side; get returns "" where
// it isn't known. Whether they agree is for the caller to say.
func compared(name string, all []subject, get func(*result.Setup) string) result.FairnessCheck {
	var found []string
	state := result.Held
	for _, s := range all {
		text := ""
		if setup := s.runs[0].Systems[scenario.New].Setup; setup != nil {
			text = get(setup)
		}
		if text == "" {
			text, state = "unknown", result.Unknown
		}
		found = append(found, s.Name+" "+text)
	}
	return check(name, state, found)
}
