import { Badge, Button, Group, SimpleGrid, Stack, Table, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { acknowledgeAlert, changeRule, createChannel, deleteChannel, deleteRule, testChannel } from "../api/actions";
import { ApiError } from "../api/client";
import { alertsQuery, channelsQuery, rulesQuery, taskQuery } from "../api/queries";
import { useAct, useConfirm } from "../components/act";
import { Failure, Loaded } from "../components/feedback";
import { Page, Section } from "../components/page";
import { amountOf, kindOf, type Rule, RuleForm } from "../components/rule-form";
import { useMay } from "../components/session";
import { Ago } from "../components/time";
import { DraftModal } from "../components/unsent";
import { languageOf } from "../i18n";

export default function Alerts() {
  const { t } = useTranslation();
  return (
    <Page title={t("alerts.title")}>
      <OpenAlerts />
      <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="md" style={{ alignItems: "start" }}>
        <Rules />
        <Channels />
      </SimpleGrid>
    </Page>
  );
}

function OpenAlerts() {
  const { t, i18n } = useTranslation();
  const mayChange = useMay("operator");
  const found = useInfiniteQuery(alertsQuery(languageOf(i18n.language)));
  const acknowledge = useAct(acknowledgeAlert);
  const alerts = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Section title={t("alerts.open")} flush>
      <Loaded query={found} none={alerts.length === 0 ? t("alerts.noneOpen") : null}>
        {() => (
          <Table className="rows">
            <Table.Tbody>
              {alerts.map((alert) => (
                <Table.Tr key={alert.id}>
                  <Table.Td>
                    <Group gap="xs" mb={4}>
                      <Badge variant="outline" color={alert.severity === "critical" ? "red" : "orange"}>{t(`alerts.${alert.severity}` as "alerts.critical")}</Badge>
                      <Text size="xs" c="dimmed" component="div"><Ago at={alert.opened_at} /></Text>
                      {alert.task_id === null ? null : <Link className="link" style={{ fontSize: "0.75rem" }} to="/tasks/$id" params={{ id: alert.task_id }}>{alert.task_name}</Link>}
                    </Group>
                    <Text size="sm" className="wrap">{alert.sentence}</Text>
                  </Table.Td>
                  <Table.Td ta="right">
                    {alert.acknowledged_at !== null ? (
                      <Text size="sm" c="dimmed">{t("alerts.acknowledgedBy", { who: alert.acknowledged_by ?? "" })}</Text>
                    ) : mayChange ? (
                      <Button size="compact-xs" variant="default" onClick={() => acknowledge.mutate(alert.id)}>{t("alerts.acknowledge")}</Button>
                    ) : null}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        )}
      </Loaded>
      {found.hasNextPage ? <Button variant="subtle" loading={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>{t("common.more")}</Button> : null}
    </Section>
  );
}

function Rules() {
  const { t } = useTranslation();
  const mayChange = useMay("operator");
  const confirm = useConfirm();
  const found = useQuery(rulesQuery);
  const toggle = useAct(changeRule);
  const remove = useAct(deleteRule);
  const [form, setForm] = useState<Rule | "new" | null>(null);
  return (
    <Section title={t("alerts.rules")} flush aside={mayChange ? <Button size="xs" variant="default" onClick={() => setForm("new")}>{t("alerts.newRule")}</Button> : null}>
      <Loaded query={found} none={found.data?.length === 0 ? t("alerts.noRules") : null}>
        {(data) => (
          <Table.ScrollContainer minWidth={480} scrollAreaProps={{ type: "auto" }}>
            <Table className="rows">
              <Table.Tbody>
                {data.map((rule) => (
                  <Table.Tr key={rule.id}>
                    <Table.Td>
                      <Text size="sm" fw={600} className="wrap">{rule.name}</Text>
                      <Text size="xs" c="dimmed">{t(`alerts.is_${kindOf(rule)}`, { amount: amountOf(rule) })}</Text>
                    </Table.Td>
                    <Table.Td>{rule.task_id === null ? <Text size="sm" c="dimmed">{t("alerts.anyTask")}</Text> : <TaskLink id={rule.task_id} />}</Table.Td>
                    <Table.Td><Text size="sm" c="dimmed">{t(rule.is_active ? "tasks.active" : "tasks.paused")}</Text></Table.Td>
                    <Table.Td ta="right">
                      {mayChange ? (
                        <Group gap={4} justify="flex-end" wrap="nowrap">
                          <Button size="compact-xs" variant="subtle" onClick={() => setForm(rule)}>{t("common.edit")}</Button>
                          <Button size="compact-xs" variant="subtle" onClick={() => toggle.mutate({ id: rule.id, is_active: !rule.is_active })}>{t(rule.is_active ? "tasks.pause" : "tasks.resume")}</Button>
                          <Button size="compact-xs" variant="subtle" color="red" onClick={() => confirm(t("alerts.deleteTitle", { name: rule.name }), null, t("common.delete"), () => remove.mutate(rule.id))}>{t("common.delete")}</Button>
                        </Group>
                      ) : null}
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        )}
      </Loaded>
      {form === null ? null : <RuleForm rule={form === "new" ? undefined : form} onClose={() => setForm(null)} />}
    </Section>
  );
}

function TaskLink({ id }: { id: number }) {
  const task = useQuery(taskQuery(id));
  return <Link className="link" to="/tasks/$id" params={{ id }}>{task.data?.name ?? `#${id}`}</Link>;
}

function Channels() {
  const { t } = useTranslation();
  const isAdmin = useMay("admin");
  const confirm = useConfirm();
  const found = useQuery(channelsQuery);
  const test = useAct(testChannel, { done: (execution) => t("tasks.ran", { id: execution.id }) });
  const remove = useAct(deleteChannel);
  const [isMaking, making] = useDisclosure();
  return (
    <Section title={t("alerts.channels")} flush aside={isAdmin ? <Button size="xs" variant="default" onClick={making.open}>{t("alerts.newChannel")}</Button> : null}>
      <Loaded query={found} none={found.data?.length === 0 ? t("alerts.noChannels") : null}>
        {(data) => (
          <Table className="rows">
            <Table.Tbody>
              {data.map((channel) => (
                <Table.Tr key={channel.id}>
                  <Table.Td><Text size="sm" fw={600} className="wrap">{channel.name}</Text></Table.Td>
                  <Table.Td maw={180}><Text size="xs" className="mono clip">{channel.url}</Text></Table.Td>
                  <Table.Td ta="right">
                    {isAdmin ? (
                      <Group gap={4} justify="flex-end" wrap="nowrap">
                        <Button size="compact-xs" variant="subtle" onClick={() => test.mutate(channel.id)}>{t("alerts.test")}</Button>
                        <Button size="compact-xs" variant="subtle" color="red" onClick={() => confirm(t("alerts.deleteTitle", { name: channel.name }), null, t("common.delete"), () => remove.mutate(channel.id))}>{t("common.delete")}</Button>
                      </Group>
                    ) : null}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        )}
      </Loaded>
      {isMaking ? <NewChannel onClose={making.close} /> : null}
    </Section>
  );
}

function NewChannel({ onClose }: { onClose: () => void }) {
  const { t, i18n } = useTranslation();
  const [name, setName] = useState("");
  const [url, setUrl] = useState("");
  const make = useAct(createChannel, { then: onClose });
  const fields = make.error instanceof ApiError ? make.error.fields : {};
  return (
    <DraftModal opened isDirty={name + url !== ""} onClose={onClose} title={t("alerts.newChannel")}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          make.mutate({ name, url, language: languageOf(i18n.language), is_active: true });
        }}
      >
        <Stack>
          <TextInput label={t("common.name")} value={name} onChange={(event) => setName(event.currentTarget.value)} error={fields.name} required data-autofocus />
          <TextInput label={t("alerts.url")} description={t("alerts.urlHint")} value={url} onChange={(event) => setUrl(event.currentTarget.value)} error={fields.url} required autoComplete="off" />
          {make.error && Object.keys(fields).length === 0 ? <Failure error={make.error} /> : null}
          <Button type="submit" loading={make.isPending} disabled={name.trim() === "" || url.trim() === ""}>{t("common.create")}</Button>
        </Stack>
      </form>
    </DraftModal>
  );
}
