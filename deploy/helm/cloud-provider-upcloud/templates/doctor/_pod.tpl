{{/* The Pod of a doctor: root, app, command, fix. */}}
{{- define "upcloud.doctorPod" -}}
{{- $doctor := .root.Values.doctor -}}
{{- $config := include "upcloud.ccmConfig" .root | fromJson -}}
metadata:
  {{- include "upcloud.podMetadata" (dict "app" .app "workload" $doctor "annotations" $doctor.podAnnotations) | nindent 2 }}
spec:
  serviceAccountName: upcloud-doctor
  restartPolicy: Never
  {{- with $doctor.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "upcloud.podFields" (dict "root" .root "workload" $doctor) | nindent 2 }}
  securityContext:
    {{- include "upcloud.podSecurityContext" . | nindent 4 }}
  containers:
    - name: upcloud-doctor
      {{- include "upcloud.imageFields" (dict "root" .root "image" $doctor.image) | nindent 6 }}
      args:
        - {{ .command }}
        - --credentials-dir=/etc/upcloud
        {{- if .fix }}
        - --fix
        - --yes
        {{- end }}
        {{- if eq .command "storage" }}
        # Where csi-driver has --cluster-id, it must have the same here.
        {{- with .root.Values.clusterID }}
        - --cluster-id={{ . }}
        {{- end }}
        {{- else }}
        # Where ccm has clusterID or clusterName in its configuration, --cluster-id and --cluster-name must be the same here.
        {{- with $config.clusterID }}
        - --cluster-id={{ . }}
        {{- end }}
        {{- with $config.clusterName }}
        - --cluster-name={{ . }}
        {{- end }}
        {{- end }}
        {{- range $doctor.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      {{- with $doctor.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $doctor.resources | nindent 8 }}
      securityContext:
        {{- include "upcloud.securityContext" . | nindent 8 }}
      volumeMounts:
        - {name: credentials, mountPath: /etc/upcloud, readOnly: true}
  volumes:
    - name: credentials
      secret: {secretName: {{ .root.Values.credentials.secretName }}}
{{- end }}

{{/* A Job that looks once: root, name, command. A Job cannot be changed, so that each upgrade has one of its own. */}}
{{- define "upcloud.doctorJob" -}}
# Looks once, and changes nothing. The Job fails when there are findings (exit status 3) or an error (1); its log has them.
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .name }}{{ if gt (int .root.Release.Revision) 1 }}-{{ .root.Release.Revision }}{{ end }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    app: {{ .name }}
    {{- include "upcloud.labels" .root | nindent 4 }}
spec:
  backoffLimit: 0 # another look would find the same
  activeDeadlineSeconds: 3600
  ttlSecondsAfterFinished: 86400
  template:
    {{- include "upcloud.doctorPod" (dict "root" .root "app" .name "command" .command "fix" false) | nindent 4 }}
{{- end }}

{{/* A CronJob that takes leftovers a step further: root, name, command, schedule. */}}
{{- define "upcloud.doctorCronJob" -}}
# Takes what is proven to be left behind one step further. Marks come off by themselves when a thing is wanted again; what is in
# quarantine can be restored for a week (upcloud-doctor restore). A Job fails when there are
# findings (exit status 3) or an error; its log has them.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    app: {{ .name }}
    {{- include "upcloud.labels" .root | nindent 4 }}
spec:
  schedule: {{ .schedule | quote }}
  concurrencyPolicy: Forbid
  failedJobsHistoryLimit: 1
  jobTemplate:
    spec:
      backoffLimit: 0
      activeDeadlineSeconds: 3000
      ttlSecondsAfterFinished: 86400
      template:
        {{- include "upcloud.doctorPod" (dict "root" .root "app" .name "command" .command "fix" true) | nindent 8 }}
{{- end }}
