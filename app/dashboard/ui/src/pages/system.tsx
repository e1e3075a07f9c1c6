import { Badge, Button, Code, Group, Modal, Select, SimpleGrid, Stack, Table, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { makeToken, revokeToken, signIn } from "../api/actions";
import type { Role, Schemas } from "../api/client";
import { sessionQuery, settingsQuery, statusQuery, tokensQuery } from "../api/queries";
import { useAct, useConfirm } from "../components/act";
import { Flow } from "../components/flow";
import { Copy } from "../components/copy";
import { Failure, Loaded, Loading } from "../components/feedback";
import { NodeTable } from "../components/nodes";
import { Facts, Page, Section } from "../components/page";
import { useMay, useSession } from "../components/session";
import { Ago, Moment } from "../components/time";
import { count, duration } from "../format";
import { jsonOf } from "../json";

export default function System() {
  const { t } = useTranslation();
  const isAdmin = useMay("admin");
  // Here and not among the tokens: who makes the first one may not be an admin any more, and has yet to read it.
  const [isMaking, making] = useDisclosure();
  return (
    <Page title={t("system.title")}>
      <Section title={t("system.nodes")} flush><NodeTable /></Section>
      <Server />
      <Flow />
      {isAdmin ? (
        <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="md" style={{ alignItems: "start" }}>
          <Tokens onNew={making.open} />
          <SettingsTable />
        </SimpleGrid>
      ) : (
        <Text size="sm" c="dimmed">{t("system.adminOnly")}</Text>
      )}
      {isMaking ? <NewToken onClose={making.close} /> : null}
    </Page>
  );
}

function Server() {
  const { t, i18n } = useTranslation();
  const found = useQuery(statusQuery);
  if (found.data === undefined) return found.error ? <Failure error={found.error} /> : <Loading />;
  const status = found.data;
  const lag = Math.abs(found.dataUpdatedAt - Date.parse(status.now)) / 1000;
  return (
    <Section title={t("system.thisServer")}>
      <Facts
        items={[
          [t("system.version"), status.version],
          [t("system.node"), <span key="node" className="mono">{status.node ?? "–"}</span>],
          [t("system.engine"), typeof status.engine?.engine === "string" ? status.engine.engine : "–"],
          [t("system.database"), status.database],
          [t("system.journal"), t("system.journalText", { writes: count(status.journal.writes ?? 0, i18n.language), groups: count(status.journal.groups ?? 0, i18n.language) })],
          [t("system.clock"), <span key="clock"><Moment at={status.now} /> · {t("system.clockText", { lag: duration(lag) })}</span>],
          [t("system.lastTick"), <Ago key="tick" at={status.last_tick_at} />],
          [t("nav.tasks"), t("overview.tasksActive", { active: status.tasks.active, total: status.tasks.total })],
        ]}
      />
    </Section>
  );
}

function SettingsTable() {
  const { t } = useTranslation();
  const found = useQuery(settingsQuery);
  const days = found.data?.find((setting) => setting.name === "SCHEDULER_RETENTION_DAYS")?.value;
  return (
    <Section title={t("system.settings")}>
      {typeof days === "number" ? <Text size="sm">{t("system.retentionText", { days })}</Text> : null}
      <Loaded query={found}>
        {(data) => (
          <Table verticalSpacing={4} fz="sm" layout="fixed">
            <Table.Tbody>
              {data.map((setting) => (
                <Table.Tr key={setting.name}>
                  <Table.Td className="mono" style={{ overflowWrap: "anywhere" }}>{setting.name}</Table.Td>
                  <Table.Td className="mono" style={{ overflowWrap: "anywhere" }}>
                    {jsonOf(setting.value)} {setting.is_default ? null : <Badge size="xs" variant="default">{t("system.changed")}</Badge>}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        )}
      </Loaded>
    </Section>
  );
}

function Tokens({ onNew }: { onNew: () => void }) {
  const { t } = useTranslation();
  const found = useQuery(tokensQuery);
  const confirm = useConfirm();
  const revoke = useAct(revokeToken);
  return (
    <Section title={t("system.tokens")} aside={<Button size="xs" variant="default" onClick={onNew}>{t("system.newToken")}</Button>}>
      <Loaded query={found} none={found.data?.length === 0 ? t("system.noTokens") : null}>
        {(data) => (
          <Table.ScrollContainer minWidth={360} scrollAreaProps={{ type: "auto" }}>
            <Table verticalSpacing="xs">
              <Table.Tbody>
                {data.map((token) => (
                  <Table.Tr key={token.name}>
                    <Table.Td className="wrap" miw={110}>{token.name}</Table.Td>
                    <Table.Td>{t(`role.${token.role as Role}`)}</Table.Td>
                    <Table.Td><Ago at={token.created_at} /></Table.Td>
                    <Table.Td ta="right">
                      {token.revoked_at === null ? (
                        <Button size="compact-xs" variant="subtle" color="red" onClick={() => confirm(t("system.revokeTitle", { name: token.name }), t("system.revokeText"), t("system.revoke"), () => revoke.mutate(token.name))}>{t("system.revoke")}</Button>
                      ) : (
                        <Text size="sm" c="dimmed">{t("system.revoked")}</Text>
                      )}
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        )}
      </Loaded>
    </Section>
  );
}

function NewToken({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const client = useQueryClient();
  const isAnonymous = useSession().csrf_token === null;
  const make = useAct(async (request: Schemas["TokenRequest"]) => {
    const made = await makeToken(request);
    // From the first token on nobody is let in without one: this window goes on with it.
    if (isAnonymous) await signIn(made.token).then((session) => client.setQueryData(sessionQuery.queryKey, session), () => undefined);
    return made;
  });
  return (
    <Modal opened onClose={onClose} title={t("system.newToken")} closeOnClickOutside={make.data === undefined} closeOnEscape={make.data === undefined}>
      {make.data ? (
        <Stack>
          <Text size="sm">{t("system.tokenOnce")}</Text>
          <Group wrap="nowrap"><Code block style={{ overflowWrap: "anywhere", whiteSpace: "pre-wrap", flex: 1 }}>{make.data.token}</Code><Copy text={make.data.token} /></Group>
          <Button onClick={onClose}>{t("common.close")}</Button>
        </Stack>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            make.mutate({ name, role });
          }}
        >
          <Stack>
            <TextInput label={t("common.name")} value={name} onChange={(event) => setName(event.currentTarget.value)} required data-autofocus />
            <Select label={t("system.role")} value={role} allowDeselect={false} data={(["viewer", "operator", "admin"] as const).map((value) => ({ value, label: t(`role.${value}`) }))} onChange={(value) => setRole((value ?? "viewer") as Role)} />
            <Button type="submit" loading={make.isPending} disabled={name.trim() === ""}>{t("common.create")}</Button>
          </Stack>
        </form>
      )}
    </Modal>
  );
}
