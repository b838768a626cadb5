package compare

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// Baseline is an earlier comparison, or a single run, to hold this one against.
type Baseline struct {
	file        string
	started     time.Time
	environment result.Environment
	scenario    string
	profile     string
	seed        uint64
	single      bool
	systems     []then
}

// then is one system as it was.
type then struct {
	name   string
	values map[string][]float64 // by metric, of the whole rounds
}

// ReadBaseline reads a result file or a comparison.
func ReadBaseline(path string) (*Baseline, error) {
	if result.IsComparison(path) {
		c, err := result.ReadComparison(path)
		if err != nil {
			return nil, err
		}
		b := &Baseline{file: filepath.Base(path), started: c.Started, environment: c.Environment, scenario: c.Scenario, profile: c.Profile, seed: c.Seed}
		for _, s := range c.Systems {
			old := then{s.Name, map[string][]float64{}}
			for _, run := range s.Runs[:min(c.Rounds, len(s.Runs))] {
				for metric, v := range run.Metrics {
					if v != nil {
						old.values[metric] = append(old.values[metric], *v)
					}
				}
			}
			b.systems = append(b.systems, old)
		}
		return b, nil
	}
	r, err := result.Read(path)
	if err != nil {
		return nil, err
	}
	b := &Baseline{file: filepath.Base(path), started: r.Started, environment: r.Environment, scenario: r.Scenario, profile: r.Profile, seed: r.Seed, single: true}
	old := then{r.Systems[scenario.New].Kind, map[string][]float64{}}
	for metric, v := range metricsOf(r) {
		if v != nil {
			old.values[metric] = []float64{*v}
		}
	}
	b.systems = []then{old}
	return b, nil
}

// of is the earlier system that one is held against: that of its name, or the
// only one that a single run has.
func (b *Baseline) of(name string) *then {
	for i := range b.systems {
		if b.systems[i].name == name || b.single {
			return &b.systems[i]
		}
	}
	return nil
}

// against holds a comparison against the baseline.
func (b *Baseline) against(c *result.Comparison) *result.Baseline {
	out := &result.Baseline{File: b.file, Started: b.started, Differs: b.differs(c), Values: []result.BaselineValue{},
		Caveat: "The two were not interleaved: what the machine did then and does now may have drifted, and no interval here holds that."}
	if b.single {
		out.Caveat += " A single run has no spread of its own; that of the rounds made now stands for it."
	}
	for _, s := range c.Systems {
		old := b.of(s.Name)
		if old == nil {
			out.Differs = append(out.Differs, fmt.Sprintf("%s is not among the systems of then", s.Name))
			continue
		}
		if old.name != s.Name {
			out.Differs = append(out.Differs, fmt.Sprintf("system: %s then, %s now", old.name, s.Name))
		}
		for _, m := range c.Metrics {
			before := old.values[m.Metric]
			var now []float64
			for _, run := range s.Runs[:min(c.Rounds, len(s.Runs))] {
				if v := run.Metrics[m.Metric]; v != nil {
					now = append(now, *v)
				}
			}
			if len(before) == 0 || len(now) == 0 {
				continue
			}
			v := result.BaselineValue{Metric: m.Metric, Unit: m.Unit, System: s.Name, Then: old.name,
				Before: *estimate(before, m.Unit).Value, Now: *estimate(now, m.Unit).Value}
			v.Difference = !positive(before) || !positive(now)
			if !v.Difference {
				before, now = logs(before), logs(now)
			}
			e, ok := stat.Unpaired(now, before, bound)
			if v.Bounds = bounds(len(now), e, ok); !v.Difference {
				v.Bounds = exponential(v.Bounds)
			}
			out.Values = append(out.Values, v)
		}
	}
	return out
}

// differs lists what isn't the same now as it was then.
func (b *Baseline) differs(c *result.Comparison) []string {
	then, now := b.environment, c.Environment
	out := []string{}
	add := func(what, then, now string) {
		if then != now {
			out = append(out, fmt.Sprintf("%s: %s then, %s now", what, told(then), told(now)))
		}
	}
	add("CPUs", fmt.Sprint(then.CPUs), fmt.Sprint(now.CPUs))
	add("CPU model", then.CPUModel, now.CPUModel)
	if math.Abs(float64(then.Memory-now.Memory)) > 0.01*float64(now.Memory) {
		add("memory", unit.Format(float64(then.Memory), "B"), unit.Format(float64(now.Memory), "B"))
	}
	add("kernel", then.Kernel, now.Kernel)
	add("operating system", then.OS, now.OS)
	add("Go", then.Go, now.Go)
	add("revision of the harness", then.Commit, now.Commit)
	add("upstream runs as", then.Upstream, now.Upstream)
	add("scenario", b.scenario, c.Scenario)
	add("profile", b.profile, c.Profile)
	add("seed", fmt.Sprint(b.seed), fmt.Sprint(c.Seed))
	if sets(then.Command) != sets(now.Command) {
		add("settings of the command line", sets(then.Command), sets(now.Command))
	}
	return out
}

func told(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// sets are the --set arguments of a command line.
func sets(command []string) string {
	var list []string
	for i, arg := range command {
		if arg == "--set" && i+1 < len(command) {
			list = append(list, command[i+1])
		}
	}
	if len(list) == 0 {
		return "none"
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}
