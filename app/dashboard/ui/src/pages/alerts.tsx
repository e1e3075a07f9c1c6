import { Badge, Button, Group, Modal, MultiSelect, NumberInput, Select, SimpleGrid, Stack, Table, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { acknowledgeAlert, createChannel, createRule, deleteChannel, deleteRule, switchRule, testChannel } from "../api/actions";
import { ApiError, type Schemas } from "../api/client";
import { alertsQuery, channelsQuery, rulesQuery } from "../api/queries";
import { useAct, useConfirm } from "../components/act";
import { Empty, Failure, Loading } from "../components/feedback";
import { Page, Section } from "../components/page";
import { useMay } from "../components/session";
import { Ago } from "../components/time";
import { languageOf } from "../i18n";

type Rule = Schemas["AlertRuleAnswer"];
type Condition = Schemas["RuleDefinition"]["condition"];
type Kind = Condition["type"];

const kinds: Kind[] = ["failed", "late", "slow", "no_success", "parked"];
/** What the one number of each kind starts with. */
const usual: Record<Kind, number> = { failed: 3, late: 60, slow: 3, no_success: 86_400, parked: 1 };

function conditionOf(kind: Kind, amount: number): Condition {
  if (kind === "failed") return { type: kind, times: amount };
  if (kind === "slow") return { type: kind, factor: amount, at_least_seconds: 1, least_runs: 20 };
  if (kind === "parked") return { type: kind, count: amount };
  return { type: kind, seconds: amount };
}

function amountOf(condition: Rule["condition"]): number {
  return Number(condition.times ?? condition.seconds ?? condition.factor ?? condition.count);
}

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
      {found.data === undefined ? (
        found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />
      ) : alerts.length === 0 ? (
        <Empty>{t("alerts.noneOpen")}</Empty>
      ) : (
        <Table.ScrollContainer minWidth={620} scrollAreaProps={{ type: "auto" }}>
          <Table className="rows">
            <Table.Tbody>
              {alerts.map((alert) => (
                <Table.Tr key={alert.id}>
                  <Table.Td w={100}><Badge variant="outline" color={alert.severity === "critical" ? "red" : "orange"}>{t(`alerts.${alert.severity}` as "alerts.critical")}</Badge></Table.Td>
                  <Table.Td>
                    <Text size="sm" className="wrap">{alert.sentence}</Text>
                    {alert.task_id === null ? null : <Link className="link" style={{ fontSize: "0.75rem" }} to="/tasks/$id" params={{ id: alert.task_id }}>{alert.task_name}</Link>}
                  </Table.Td>
                  <Table.Td><Ago at={alert.opened_at} /></Table.Td>
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
        </Table.ScrollContainer>
      )}
      {found.hasNextPage ? <Button variant="subtle" loading={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>{t("common.more")}</Button> : null}
    </Section>
  );
}

function Rules() {
  const { t } = useTranslation();
  const mayChange = useMay("operator");
  const confirm = useConfirm();
  const found = useQuery(rulesQuery);
  const toggle = useAct(switchRule);
  const remove = useAct(deleteRule);
  const [isMaking, making] = useDisclosure();
  return (
    <Section title={t("alerts.rules")} flush aside={mayChange ? <Button size="xs" variant="default" onClick={making.open}>{t("alerts.newRule")}</Button> : null}>
      {found.data === undefined ? (
        found.error ? <Failure error={found.error} /> : <Loading />
      ) : found.data.length === 0 ? (
        <Empty>{t("alerts.noRules")}</Empty>
      ) : (
        <Table.ScrollContainer minWidth={480} scrollAreaProps={{ type: "auto" }}>
          <Table className="rows">
            <Table.Tbody>
              {found.data.map((rule) => (
                <Table.Tr key={rule.id}>
                  <Table.Td>
                    <Text size="sm" fw={600} className="wrap">{rule.name}</Text>
                    <Text size="xs" c="dimmed">{t(`alerts.is_${rule.condition.type as Kind}`, { amount: amountOf(rule.condition) })}</Text>
                  </Table.Td>
                  <Table.Td>{rule.task_id === null ? <Text size="sm" c="dimmed">{t("alerts.anyTask")}</Text> : <Link className="link" to="/tasks/$id" params={{ id: rule.task_id }}>#{rule.task_id}</Link>}</Table.Td>
                  <Table.Td><Text size="sm" c="dimmed">{t(rule.is_active ? "tasks.active" : "tasks.paused")}</Text></Table.Td>
                  <Table.Td ta="right">
                    {mayChange ? (
                      <Group gap={4} justify="flex-end" wrap="nowrap">
                        <Button size="compact-xs" variant="subtle" onClick={() => toggle.mutate(rule)}>{t(rule.is_active ? "tasks.pause" : "tasks.resume")}</Button>
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
      {isMaking ? <NewRule onClose={making.close} /> : null}
    </Section>
  );
}

function NewRule({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const channels = useQuery(channelsQuery);
  const [name, setName] = useState("");
  const [kind, setKind] = useState<Kind>("failed");
  const [amount, setAmount] = useState<number>(usual.failed);
  const [severity, setSeverity] = useState<"warning" | "critical">("warning");
  const [told, setTold] = useState<string[]>([]);
  const make = useAct(createRule, { then: onClose });
  const fields = make.error instanceof ApiError ? make.error.fields : {};
  return (
    <Modal opened onClose={onClose} title={t("alerts.newRule")} closeButtonProps={{ "aria-label": t("common.close") }}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          make.mutate({ name, condition: conditionOf(kind, amount), severity, channel_ids: told.map(Number), notify_recovery: true, check_seconds: 30, is_active: true });
        }}
      >
        <Stack>
          <TextInput label={t("common.name")} value={name} onChange={(event) => setName(event.currentTarget.value)} error={fields.name} required data-autofocus />
          <Select
            label={t("alerts.condition")}
            allowDeselect={false}
            value={kind}
            data={kinds.map((value) => ({ value, label: t(`alerts.when_${value}`) }))}
            onChange={(value) => {
              const chosen = (value ?? "failed") as Kind;
              setKind(chosen);
              setAmount(usual[chosen]);
            }}
          />
          <NumberInput label={t(`alerts.amount_${kind}`)} min={1} value={amount} onChange={(value) => setAmount(Number(value))} required />
          <Select label={t("alerts.severity")} allowDeselect={false} value={severity} data={(["warning", "critical"] as const).map((value) => ({ value, label: t(`alerts.${value}`) }))} onChange={(value) => setSeverity((value ?? "warning") as "warning" | "critical")} />
          <MultiSelect label={t("alerts.channels")} data={channels.data?.map((channel) => ({ value: String(channel.id), label: channel.name })) ?? []} value={told} onChange={setTold} error={fields.channel_ids} />
          {make.error && Object.keys(fields).length === 0 ? <Failure error={make.error} /> : null}
          <Button type="submit" loading={make.isPending} disabled={name.trim() === ""}>{t("common.create")}</Button>
        </Stack>
      </form>
    </Modal>
  );
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
      {found.data === undefined ? (
        found.error ? <Failure error={found.error} /> : <Loading />
      ) : found.data.length === 0 ? (
        <Empty>{t("alerts.noChannels")}</Empty>
      ) : (
        <Table className="rows">
          <Table.Tbody>
            {found.data.map((channel) => (
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
    <Modal opened onClose={onClose} title={t("alerts.newChannel")} closeButtonProps={{ "aria-label": t("common.close") }}>
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
    </Modal>
  );
}
