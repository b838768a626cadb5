package harness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"phasegate/harness/forecast"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/harness/stat"
)

// sequential is the stage behind the improvement metrics: one client in a
// closed loop, straight to the upstream and then for one warm key through the
// new system, both by service time. It comes last, so that it disturbs nothing
// that the gates are judged on.
func (r *run) sequential(ctx context.Context) error {
	q := r.plan.Sequential
	if q.Direct == 0 || q.Hits == 0 {
		return nil
	}
	if r.stages.stopped > 0 {
		r.noSequential("the run was stopped before the sequential stage; need one that goes on to it, without abort: on_failure")
		return nil
	}
	r.opts.Progress(Progress{Stage: "sequential", Text: "one client, straight to the upstream and then for hits"})
	old, hit := r.plan.System(scenario.Old), r.plan.System(scenario.New)
	if old == nil || old.Kind != scenario.KindDirect {
		r.noSequential("the old system isn't the upstream itself, to compare hits with")
		return nil
	}
	if !r.plan.Load.Verify {
		r.noSequential("verification is off, so nothing proves that its answers are hits")
		return nil
	}
	if r.foreign {
		r.noSequential("its answers don't come from the upstream that the old system is, and nothing proves that they are hits")
		return nil
	}
	target := strings.ReplaceAll(r.plan.Load.Path, "{key}", "sequential")
	total, stolen, _ := probe.MachineCPU() // where it can't be read, nothing is excused
	direct, err := r.timed(ctx, scenario.Old, q.Direct, target)
	if err == nil {
		var before, after uint64
		if before, err = r.reads(ctx); err != nil {
			return err
		}
		var hits []load.Turn
		if hits, err = r.timed(ctx, hit.Name, q.Hits, target); err == nil {
			if after, err = r.reads(ctx); err != nil {
				return err
			}
			// The request that fills the cache is the one that may.
			if fetched := after - before; fetched > 1 {
				err = fmt.Errorf("%d of %d requests for one key went to the upstream, so there are no hits to time", fetched, len(hits)+1)
			} else {
				s := &sequence{Direct: direct, Hits: hits}
				if totalNow, stolenNow, _ := probe.MachineCPU(); totalNow > total {
					s.Stolen = float64(stolenNow-stolen) / float64(totalNow-total)
				}
				r.note(entry{Sequence: s})
			}
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.noSequential(err.Error())
	}
	return nil
}

// timed asks one arm n times for a target that it was asked for before.
func (r *run) timed(ctx context.Context, arm string, n int, target string) ([]load.Turn, error) {
	bounded, cancel := context.WithTimeout(ctx, forecast.SequentialTime)
	defer cancel()
	turns, err := r.generator.Sequential(bounded, r.armIndex(arm), n, target)
	if err != nil && bounded.Err() == nil {
		return nil, fmt.Errorf("the sequential stage on the %s system: %w", arm, err)
	}
	if len(turns) == 0 {
		return nil, fmt.Errorf("the sequential stage on the %s system got no answer within %s", arm, forecast.SequentialTime)
	}
	return turns, ctx.Err()
}

// reads is how many reads the new system has sent to the upstream.
func (r *run) reads(ctx context.Context) (uint64, error) {
	ledger, err := r.env.Control().Ledger(ctx, scenario.New, false)
	if err != nil {
		return 0, fmt.Errorf("read the upstream's ledger: %w", err)
	}
	return ledger.Reads, nil
}

// improvement derives the metrics: the ratio of the mean service times, and
// that of the rates, which one client in a closed loop reaches with whole turns.
func (r *record) improvement(s *sequence) {
	direct, hits := s.Direct, s.Hits
	level := 1 - (1-r.plan.Confidence)/float64(r.stages.looks)
	var took time.Duration
	for _, t := range slices.Concat(direct, hits) {
		took += t.Whole
	}
	measured := func(of func(load.Turn) time.Duration) (m gate.Measured, ok bool) {
		pairs := func(turns []load.Turn) (pairs []stat.Pair) {
			for _, t := range turns {
				pairs = append(pairs, stat.Pair{Num: of(t).Seconds(), Den: 1})
			}
			return pairs
		}
		e, ok := stat.Quotient(pairs(direct), pairs(hits), level)
		m = gate.Measured{Value: &e.Value, Samples: int64(len(direct) + len(hits)), Took: took, Stolen: s.Stolen}
		m.Lacking, m.LackingTime = lacking(direct, hits)
		if e.Bounded {
			m.Low, m.High = &e.Low, &e.High
		}
		return m, ok
	}
	latency, ok := measured(func(t load.Turn) time.Duration { return t.Service })
	rate, okRate := measured(func(t load.Turn) time.Duration { return t.Whole })
	if !ok || !okRate {
		r.noSequence = "the sequential stage took too few samples"
		return
	}
	r.values = map[string]gate.Measured{"hit_latency_improvement": latency, "throughput_improvement": rate}
	r.notice("improvement of hits: %.0f times, one client, mean %s straight to the upstream over mean %s of a hit. It is the upstream's delay over a loopback round trip: any cache reaches it",
		*latency.Value, mean(direct).Round(time.Millisecond), mean(hits).Round(time.Microsecond))
}

// lacking is how many more turns there must be for bounds, and how long they take.
func lacking(sides ...[]load.Turn) (turns int64, took time.Duration) {
	for _, side := range sides {
		missing := max(stat.MinIntervals-len(side), 0)
		turns += int64(missing)
		for _, t := range side {
			took += time.Duration(missing) * t.Whole / time.Duration(len(side))
		}
	}
	return turns, took
}

func (r *run) noSequential(reason string) { r.note(entry{Sequence: &sequence{None: reason}}) }

func mean(turns []load.Turn) time.Duration {
	var sum time.Duration
	for _, t := range turns {
		sum += t.Service
	}
	return sum / time.Duration(len(turns))
}
