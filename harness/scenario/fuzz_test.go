package scenario_test

import (
	"errors"
	"strings"
	"testing"

	"phasegate/harness/scenario"
	"phasegate/scenarios"
)

// Whatever the file and the command line say, Compile returns a plan that can
// be run, or faults that have a place, in order; it never panics.
func FuzzCompile(f *testing.F) {
	f.Add(valid, "load.rate=200/s", "direct")
	f.Add(foreign, "load.keys.pace=log", "")
	f.Add(valid, "load.rate={sine: {mean: 2/s, amplitude: 1/s, period: 1m, start: peak}}", "")
	f.Add(valid, "load.keys.har=a.har", "")
	f.Add("a: &x [*x]\n", "gates.0={gate: cpu < 1%}", "http://127.0.0.1:1")
	f.Add("? {a: b}\n: c\n<<: {a: 1}\n", "a.b.c.0.d=1", "optimizer")
	f.Add("x: !!binary |\n  R0l\ny: .inf\nz: 0o17\n", "load=", "://")
	for _, tt := range faulty {
		f.Add(with(tt.from, tt.to), "", "")
	}
	for _, name := range scenarios.Names() {
		src, _ := scenarios.Read(name)
		f.Add(string(src), "load.keys.access_log=a.log", "")
	}
	f.Fuzz(func(t *testing.T, src, set, system string) {
		opts := scenario.Options{System: system}
		if set != "" {
			opts.Set = []string{set}
		}
		plan, err := scenario.Compile([]byte(src), "f.yaml", opts)
		if err == nil {
			if len(plan.Gates) == 0 || plan.System(scenario.New) == nil || plan.Steady <= 0 || plan.Name == "" {
				t.Errorf("not a plan: %+v", plan)
			}
			if len(plan.Load.Rate) == 0 && plan.Load.Sine == nil && !plan.Load.Keys.PaceLog {
				t.Errorf("no rate: %+v", plan.Load)
			}
			return
		}
		var faults scenario.Errors
		if !errors.As(err, &faults) || len(faults) == 0 {
			t.Fatalf("%T: %v", err, err)
		}
		line := 0
		for _, fault := range faults {
			located := fault.File == "f.yaml" && fault.Line > 0 && fault.Col > 0
			named := strings.HasPrefix(fault.File, "--") && fault.Line == 0
			if !located && !named || fault.Msg == "" || strings.ContainsAny(fault.Error(), "\r\n") {
				t.Errorf("no place, or not one line: %+v", *fault)
			}
			if located && fault.Line < line {
				t.Errorf("out of order: %v", err)
			}
			line = fault.Line
			if named {
				line = 1 << 30 // none of the file may follow
			}
		}
	})
}
