package scenario

import (
	"slices"
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
