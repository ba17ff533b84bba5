package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd takes those of etcd's flags that the rig uses, so that a real etcd can stand in for it.
func runEtcd() error {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dir := flags.String("data-dir", "", "folder of the data")
	clients := flags.String("listen-client-urls", "http://127.0.0.1:2379", "URLs for clients, with commas between them")
	flags.String("advertise-client-urls", "", "taken for the sake of the real etcd, and not needed")
	peers := flags.String("listen-peer-urls", "http://127.0.0.1:2380", "URL for peers, of which there are none")
	flags.Bool("unsafe-no-fsync", true, "taken for the sake of the real etcd: this one never syncs to disk")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	server, err := startEtcd(*dir, strings.Split(*clients, ","), *peers)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-signals:
		server.Close()
		return nil
	case err := <-server.Err():
		return err
	}
}

func startEtcd(dir string, clients []string, peer string) (*embed.Etcd, error) {
	if dir == "" {
		return nil, fmt.Errorf("name a folder for the data of etcd")
	}
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "warn"
	config.WarningUnaryRequestDuration = time.Second
	// A test's data needs to survive a killed process, not a power failure.
	config.UnsafeNoFsync = true
	config.QuotaBackendBytes = 4 << 30
	config.ListenClientUrls = nil
	for _, text := range clients {
		client, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		config.ListenClientUrls = append(config.ListenClientUrls, *client)
	}
	config.AdvertiseClientUrls = config.ListenClientUrls
	peerURL, err := url.Parse(peer)
	if err != nil {
		return nil, err
	}
	config.ListenPeerUrls = []url.URL{*peerURL}
	config.AdvertisePeerUrls = config.ListenPeerUrls
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case <-time.After(30 * time.Second):
		server.Close()
		return nil, fmt.Errorf("etcd in %s isn't ready after 30 s", dir)
	}
}

// compactEtcd forgets all of the past: whoever asks for an older revision is answered 410 (Gone).
func compactEtcd() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("the one argument is etcd's URL")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer, err := client.Get(ctx, "no-such-key")
	if err != nil {
		return err
	}
	revision := answer.Header.Revision
	if _, err := client.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	fmt.Println(revision)
	return nil
}
