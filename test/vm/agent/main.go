// Command agent is the first program that the tests' virtual machine runs, and executes what they ask it to.
//
//	agent                  in the guest: serve
//	agent relay HOST:PORT  outside: pass standard input and output on to a connection, as QEMU wants it for one that the
//	                       guest opens
package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/vm/guest"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "relay" {
		guest.Relay(standard{os.Stdin, os.Stdout}, func() (net.Conn, error) { return net.Dial("tcp", os.Args[2]) })
		return
	}
	fmt.Println("vm: the agent serves")
	if err := guest.Serve(); err != nil {
		fmt.Println("vm: the agent:", err)
		os.Exit(1)
	}
}

// standard is the process's standard input and output as one connection.
type standard struct {
	io.ReadCloser
	io.Writer
}
