// Package soak has one test: the optimizer under mixed load with faults on both sides,
// for as long as PHASEGATE_SOAK says (make soak), else for some seconds. It has a
// package of its own, so that goroutines, descriptors and memory of its process are its
// alone.
package soak
