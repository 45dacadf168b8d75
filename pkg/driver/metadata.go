package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Metadata is what UpCloud's metadata service tells a server about itself.
type Metadata struct {
	ServerID   string // UUID of the server
	Zone       string
	Hostname   string
	Interfaces int // number of network interfaces
}

const (
	metadataAttempts = 4
	metadataTimeout  = 2 * time.Second        // of one attempt; it is on the same host
	metadataPause    = 250 * time.Millisecond // doubled after each attempt
	metadataMaxBytes = 1 << 20                // user data may be in there
)

// ReadMetadata asks the metadata service at baseURL, such as http://169.254.169.254, trying again for a few seconds:
// a driver may start before the network is complete.
func ReadMetadata(ctx context.Context, baseURL string) (Metadata, error) {
	var err error
	pause := metadataPause
	for attempt := range metadataAttempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return Metadata{}, err
			case <-time.After(pause):
			}
			pause *= 2
		}
		var found Metadata
		if found, err = readMetadataOnce(ctx, baseURL); err == nil {
			return found, nil
		}
	}
	return Metadata{}, err
}

func readMetadataOnce(ctx context.Context, baseURL string) (Metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	url := strings.TrimRight(baseURL, "/") + "/metadata/v1.json"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Metadata{}, err
	}
	// The address is link-local: no proxy can reach it for us.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return Metadata{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Metadata{}, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return parseMetadata(io.LimitReader(response.Body, metadataMaxBytes))
}

func parseMetadata(body io.Reader) (Metadata, error) {
	var answer struct {
		InstanceID string `json:"instance_id"`
		Region     string `json:"region"`
		Hostname   string `json:"hostname"`
		Network    struct {
			Interfaces []json.RawMessage `json:"interfaces"`
		} `json:"network"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return Metadata{}, fmt.Errorf("the answer of the metadata service is not what UpCloud's has: %w", err)
	}
	id, err := uuid.Parse(answer.InstanceID)
	if err != nil {
		return Metadata{}, fmt.Errorf("the metadata service names the server %q, which is not a UUID", answer.InstanceID)
	}
	if answer.Region == "" {
		return Metadata{}, errors.New("the metadata service does not tell the server's region")
	}
	return Metadata{
		ServerID: id.String(), Zone: answer.Region, Hostname: answer.Hostname,
		Interfaces: len(answer.Network.Interfaces),
	}, nil
}
