package recording_test

import (
	"fmt"

	"phasegate/harness/recording"
)

func ExampleReadAccessLog() {
	log, err := recording.ReadAccessLog("../../fixtures/traffic/shop.common.log")
	if err != nil {
		panic(err)
	}
	fmt.Println(log.Requests(), "requests,", log.Malformed, "lines can't be replayed:")
	for _, p := range log.Problems {
		fmt.Println(p)
	}
	fmt.Printf("%+v\n", log.Catalog()["/old-catalogue"])
	// Output:
	// 300 requests, 3 lines can't be replayed:
	// line 88: request "\x16\x03\x01\x02" doesn't begin with a method
	// line 151: the [time] has no end
	// line 202: CONNECT asks for a tunnel, not for a resource
	// {Size:169 Status:301}
}
