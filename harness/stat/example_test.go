package stat_test

import (
	"fmt"

	"phasegate/harness/stat"
)

func ExampleUpper() {
	// 7,800 requests, none failed: how large may the share of failures be?
	fmt.Printf("%.4f %%\n", 100*stat.Upper(0, 7800, 0.95))
	// Output: 0.0384 %
}

func ExampleSampleFor() {
	fmt.Println("clean requests for availability > 99.99 %:", stat.SampleFor(0, 0.0001, 0.95))
	fmt.Println("with one failure:", stat.SampleFor(1, 0.0001, 0.95))
	// Output:
	// clean requests for availability > 99.99 %: 29956
	// with one failure: 47437
}

func ExampleQuantileRanks() {
	low, high := stat.QuantileRanks(500, 0.95, 0.95)
	fmt.Printf("of 500 values in order, number %d and number %d bound the 95th percentile\n", low, high)
	// Output: of 500 values in order, number 467 and number 484 bound the 95th percentile
}

func ExampleSlope() {
	memory := []stat.Point{{0, 61.0e6}, {10, 61.1e6}, {20, 61.0e6}, {30, 61.2e6}, {40, 61.1e6}, {50, 61.3e6}}
	fit, _ := stat.Slope(memory, 0.95)
	fmt.Printf("%.0f bytes per second, between %.0f and %.0f\n", fit.Slope.Value, fit.Slope.Low, fit.Slope.High)
	// Output: 4857 bytes per second, between 2330 and 7385
}

func ExampleRatio() {
	var seconds []stat.Pair // responses and length of each interval
	for i := range 30 {
		seconds = append(seconds, stat.Pair{Num: float64(118 + i%5), Den: 1})
	}
	e, _ := stat.Ratio(seconds, 0.95)
	fmt.Printf("%.0f/s, bounded: %t\n", e.Value, e.Bounded)
	// Output: 120/s, bounded: true
}
