// Package scenario turns a scenario file into a [Plan].
//
// A scenario is a YAML file that states one phase of a rollout: upstream,
// systems, traffic split, load, gates and rollback triggers. [Open] takes a
// file or the name of an embedded scenario, [Compile] takes bytes. Either
// gives a plan in which every default is filled in and every unit converted,
// or [Errors]: all faults of the file together, each at its line and column,
// each saying what was found and what is allowed.
//
// The grammar stands in one place, grammar.go. The checks of a file, the
// lists of allowed keys in messages and the JSON Schema for editors
// ([Schema]) are all made from it.
//
// [ParseCondition] reads the sentence a gate is written as, and the catalogue
// behind [All] and [Lookup] says which metrics exist, in which unit, and who
// measures them.
//
// The package decides and computes only: it opens no file, no socket and
// reads no clock.
package scenario
