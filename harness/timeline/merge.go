package timeline

import (
	"slices"
	"time"
)

// Window merges the intervals that begin in [from, to): from is best given as a
// multiple of the interval. The last interval ends at to at the latest, so that
// a rate over it is one over the time in which requests could be due. Requests
// that fell due there and aren't finished are in it as Pending.
//
// Where a part of it isn't recent any more, all of it is in rows of the series,
// and it can begin and end there at marks only: it is shortened to those. From
// and To say what it covers.
func (s *Series) Window(system int, from, to time.Duration) Window {
	return s.window(system, from, to, false)
}

// Counted is Window without its histograms and Resources: counts alone, at a
// fraction of the cost, for who looks back far and often.
func (s *Series) Counted(system int, from, to time.Duration) Window {
	return s.window(system, from, to, true)
}

func (s *Series) window(system int, from, to time.Duration, counted bool) Window {
	t := s.tracks[system]
	first, end := s.ceil(from), s.ceil(to)
	var stages []stage
	for _, g := range t.stages {
		if g.start >= first && g.end <= end {
			stages = append(stages, g)
		}
	}
	if first < t.closed {
		if len(stages) > 0 {
			first = stages[0].start
		} else {
			first = t.closed
		}
		if n := len(stages); n > 0 && stages[n-1].end < t.closed {
			end = stages[n-1].end
			to = min(to, time.Duration(end)*s.interval)
		}
	}
	end = max(end, first)
	rows := s.read(t, first, end, counted)
	w := Window{
		From:   time.Duration(first) * s.interval,
		To:     time.Duration(end) * s.interval,
		Limits: slices.Clone(s.over), Over: make(map[time.Duration]int64, len(s.over)),
		Intervals: make([]Interval, len(rows)),
	}
	w.To = max(w.From, min(w.To, to))
	w.Seconds = (w.To - w.From).Seconds()
	for _, limit := range s.over {
		w.Over[limit] = 0
	}
	for i := range rows {
		r := &rows[i]
		w.Intervals[i] = s.makeInterval(r)
		w.Intervals[i].End = min(w.Intervals[i].End, to)
		w.Counts.add(&r.counts)
		for j, n := range r.over {
			w.Over[s.over[j]] += n
		}
		w.Ledger.add(r.ledger)
		w.HaveLedger = w.HaveLedger || r.haveLedger
	}
	if counted {
		return w
	}
	w.Latency, w.Service, w.Resources = NewHistogram(), NewHistogram(), t.used(from, to)
	for _, g := range stages {
		w.Latency.Merge(g.latency)
		w.Service.Merge(g.service)
	}
	for i := max(first, t.closed); i < end; i++ {
		if b := t.bins[i]; b != nil {
			b.latency.addTo(w.Latency)
			b.service.addTo(w.Service)
		}
	}
	return w
}

// Intervals are the intervals that begin in [from, to), in order, without gaps;
// in rows where Window would give rows.
func (s *Series) Intervals(system int, from, to time.Duration) []Summary {
	t := s.tracks[system]
	first, end := s.ceil(from), s.ceil(to)
	usage := t.used(from, to)
	rows := s.read(t, first, max(first, end), false)
	summaries := make([]Summary, len(rows))
	for i := range rows {
		sum := &summaries[i]
		sum.Interval = s.makeInterval(&rows[i])
		if q := rows[i].quantiles; q != nil {
			sum.P50, sum.P95, sum.P99 = &q[0], &q[1], &q[2]
		}
		var cpu, span float64
		for len(usage) > 0 && usage[0].At < sum.End {
			sum.Memory = &usage[0].Resident
			cpu += usage[0].CPU * usage[0].Span.Seconds()
			span += usage[0].Span.Seconds()
			usage = usage[1:]
		}
		if span > 0 {
			cpu /= span
			sum.CPU = &cpu
		}
	}
	return summaries
}

// read returns the rows that begin in [first, end), made for the occasion of
// what is recent: without quantiles, if they are only counted.
func (s *Series) read(t *track, first, end int, counted bool) []row {
	var rows []row
	for _, r := range t.rows {
		if r.start >= first && r.start < end {
			rows = append(rows, r)
		}
	}
	wide := len(rows) > 0
	for i := max(first, min(t.closed, end)); i < end; {
		next := i + 1
		if wide {
			next, _ = s.next(i)
			next = min(next, end)
		}
		var r row
		if counted {
			r = s.count(t, i, next)
		} else {
			r, _, _ = s.row(t, i, next)
		}
		rows = append(rows, r)
		i = next
	}
	return rows
}

// used returns the samples of what was used in [from, to).
func (t *track) used(from, to time.Duration) []Sample {
	var usage []Sample
	for _, u := range t.usage {
		if u.At >= max(from, 0) && u.At < to {
			usage = append(usage, u)
		}
	}
	slices.SortStableFunc(usage, func(a, b Sample) int { return int(a.At - b.At) })
	return usage
}

func (s *Series) makeInterval(r *row) Interval {
	return Interval{
		Start: time.Duration(r.start) * s.interval, End: time.Duration(r.end) * s.interval,
		Counts: r.counts, Over: slices.Clone(r.over), Ledger: r.ledger, HaveLedger: r.haveLedger,
	}
}
