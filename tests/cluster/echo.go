package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
)

// runEcho answers on TCP and UDP ports with its name and what it was sent, as the echo server of
// the rig does: a TCP connection is greeted by the name on a line of its own and has each line
// returned; a datagram is returned with the name and a space in front.
func runEcho() error {
	hostname, _ := os.Hostname()
	if pod := os.Getenv("POD_NAME"); pod != "" {
		hostname = pod
	}
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	name := flags.String("name", hostname, "what it calls itself")
	tcp := flags.String("tcp", "", "TCP ports, with commas between them")
	udp := flags.String("udp", "", "UDP ports, with commas between them")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	failed := make(chan error)
	for _, port := range split(*tcp) {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() { failed <- serveLines(listener, *name) }()
	}
	for _, port := range split(*udp) {
		socket, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return err
		}
		go func() { failed <- serveDatagrams(socket, *name) }()
	}
	return <-failed
}

func serveLines(listener net.Listener, name string) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			fmt.Fprintln(connection, name)
			lines := bufio.NewReader(connection)
			for {
				line, err := lines.ReadBytes('\n')
				if err != nil {
					return
				}
				if _, err := connection.Write(line); err != nil {
					return
				}
			}
		}()
	}
}

// serveDatagrams answers from the address that was asked: the socket is bound to none, and a pod
// has one address in each family, so the kernel picks the right one.
func serveDatagrams(socket net.PacketConn, name string) error {
	buffer := make([]byte, 64<<10)
	for {
		length, sender, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		answer := append([]byte(name+" "), buffer[:length]...)
		// A lost answer is the client's to notice.
		_, _ = socket.WriteTo(answer, sender)
	}
}
