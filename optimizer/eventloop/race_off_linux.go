//go:build !race

package eventloop

func acquired()  {}
func releasing() {}
