package scenario

import (
	"slices"
	"strings"
	"time"
)

func (c *compiler) gates(root *value) {
	v := root.get("gates")
	if v == nil || v.form != list {
		return
	}
	if len(v.items) == 0 {
		c.fail(v, "no gate, so nothing would be judged; allowed: a list of %s", conditionAllowed)
	}
	declared := written(profilesOf(root))
	seen := map[string]place{}
	asked := false // for no wrong responses at all: a laxer gate doesn't replace the implied one
	for _, item := range v.items {
		g, ok := c.condition(item, "gate")
		if !ok {
			continue
		}
		gate := Gate{Condition: g, System: c.arm(item)}
		id := gate.Text + " " + gate.System
		if first, ok := seen[id]; ok {
			c.fail(item, "the gate %s is written twice, first at %s; allowed: once", quote(gate.Text), first)
		}
		seen[id] = item.at
		if !c.judged(item, gate, declared) {
			continue
		}
		asked = asked || gate.Metric.Name == "wrong_responses" && gate.System == New && !gate.Holds(1)
		c.plan.Gates = append(c.plan.Gates, gate)
	}
	if len(c.errs) == 0 && len(c.plan.Gates) == 0 {
		c.fail(v, "no gate for the profile %s, so nothing would be judged; allowed: at least one", c.plan.Profile)
	}
	if c.plan.Load.Verify && !asked {
		implied, err := ParseCondition("wrong_responses <= 0")
		if err != nil {
			panic("scenario: " + err.Error()) // a fault of the catalogue, met by any test
		}
		c.plan.Gates = append(c.plan.Gates, Gate{Condition: implied, System: New, Implied: true})
	}
}

func profilesOf(root *value) *value {
	if v := root.get("profiles"); v != nil {
		return v
	}
	return &value{}
}

// judged reports whether the chosen profile judges the gate.
func (c *compiler) judged(item *value, gate Gate, declared []string) bool {
	if item.form != mapping {
		return true
	}
	names := item.get("profiles")
	if names == nil || names.form != list {
		return true
	}
	var in []string
	for _, n := range names.items {
		if n.read != nil && !slices.Contains(declared, n.text) {
			c.fail(n, "no profile %s in this scenario; allowed: %s", quote(n.text), listed(declared))
		}
		in = append(in, n.text)
	}
	if len(in) == 0 {
		c.fail(names, "no profile judges this gate; allowed: at least one of %s", listed(declared))
	}
	if slices.Contains(in, c.plan.Profile) {
		return true
	}
	c.notice("gate %s is not judged in profile %s, only in %s", gate.Text, c.plan.Profile, listed(in))
	return false
}

// condition returns the condition of a gate or trigger; false if it was
// reported.
func (c *compiler) condition(item *value, name string) (Condition, bool) {
	if item.form == mapping {
		item = item.get(name)
	}
	if item == nil {
		return Condition{}, false
	}
	condition, ok := item.read.(Condition)
	return condition, ok
}

// arm returns the system that a gate or trigger is about.
func (c *compiler) arm(item *value) string {
	if item.form != mapping {
		return New
	}
	name := read(item, "system", New)
	s := c.plan.System(name)
	switch {
	case name != Old:
	case s == nil:
		c.fail(item.get("system"), "this scenario has no old system; allowed: new")
	case s.Share == 0:
		c.fail(item.get("system"), "the old system gets no traffic; allowed: new, or traffic.old above 0%%")
	}
	return name
}

func (c *compiler) triggers(root *value) {
	v := root.get("triggers")
	if v == nil {
		return
	}
	for _, item := range v.items {
		when, ok := c.condition(item, "when")
		if !ok {
			continue
		}
		if when.Metric.Source == FromSequential || when.Metric.Estimator == ByTime {
			c.fail(item.get("when"), "%s is measured once, and a trigger watches a window; allowed: metrics of the running load", when.Metric.Name)
			continue
		}
		c.plan.Triggers = append(c.plan.Triggers, Trigger{
			Condition: when,
			System:    c.arm(item),
			For:       read(item, "for", time.Duration(0)),
			Action:    read(item, "action", "immediate"),
		})
	}
}

// drills reads the planned faults. Those of an unknown kind are kept in words,
// so that nobody takes their absence from the results for success.
func (c *compiler) drills(root *value) {
	v := root.get("drills")
	if v == nil {
		return
	}
	for _, item := range v.items {
		fault, expect := item.get("fault"), item.get("expect")
		if fault == nil || fault.form != mapping {
			continue
		}
		kind := fault.get("kind")
		if kind == nil || kind.form != scalar || strings.TrimSpace(kind.text) == "" {
			c.fail(fault, "no kind; allowed: {kind: NAME, for: DURATION}")
			continue
		}
		text := strings.TrimSpace(kind.text)
		drill := Drill{}
		if k := FaultKind(text); k == Partition || k == Pause {
			drill.Fault = c.fault(k, fault)
		}
		if d := fault.get("for"); d != nil {
			if _, err := parseDuration(d.text); err != nil {
				d.path = fault.path + ".for"
				c.fail(d, "%v; allowed: %s", err, durationAllowed)
			}
			text += " for " + d.text
		}
		if expect != nil && len(expect.items) > 0 {
			var said string
			said, drill.Expect = c.expected(expect)
			text += "; expect " + said
		}
		if expect == nil || len(expect.items) == 0 {
			c.fail(item, "nothing is expected, so nothing would be judged; allowed: conditions, and %s", NoTrigger)
		}
		drill.Text = text
		c.plan.Drills = append(c.plan.Drills, drill)
		if drill.Fault.Kind == "" {
			c.notice("drill %s not run: this version injects no such fault", quote(text))
		}
	}
}

// fault reads a fault that this version injects.
func (c *compiler) fault(kind FaultKind, v *value) Fault {
	f := Fault{Kind: kind, Target: TargetUpstream}
	for _, key := range v.fields {
		switch key.name {
		case "kind":
		case "for":
			f.For, _ = parseDuration(key.value.text) // its error is told by the caller
		case "target":
			f.Target = key.value.text
			if targets := []string{TargetUpstream, New, Old}; !slices.Contains(targets, f.Target) {
				c.failAt(key.value.at, "%s.target: %s is none of the choices; allowed: %s", v.path, key.value.describe(), listed(targets))
			}
		default:
			c.failAt(key.at, "unknown key %s in a fault of kind %s; allowed: kind, for, target", quote(key.name), kind)
		}
	}
	if v.get("for") == nil || f.For <= 0 && len(c.errs) == 0 {
		c.fail(v, "no time; allowed: for, above 0")
	}
	return f
}

// expected joins a drill's expectations. Those with an operator must be
// conditions; of the others only [NoTrigger] can be judged.
func (c *compiler) expected(v *value) (text string, all []Expectation) {
	var parts []string
	for _, item := range v.items {
		text := strings.TrimSpace(item.text)
		e := Expectation{Text: text}
		if strings.ContainsAny(text, "<>=") {
			condition, err := ParseCondition(text)
			if err != nil {
				c.fail(item, "%v", err)
			}
			e = Expectation{condition.Text, &condition}
		}
		parts = append(parts, e.Text)
		all = append(all, e)
	}
	return strings.Join(parts, ", "), all
}
